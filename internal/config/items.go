package config

import (
	"log/slog"
	"strings"
	"time"
)

// item describes one kind of item of the file.
type item struct {
	name string
	main string // the key that a bare value stands for; empty: none
	once bool   // it may stand at most once
	any  bool   // its value is not looked at
	ours bool   // Receptor has no such item
	// build reads the item's keys and puts it into the Config. The keys that
	// it asks for are the keys that the item has: there is no other list.
	build func(*Config, *fields)
}

// table returns every item that a file may have.
func table() []item {
	items := []item{
		{name: "node", main: "id", once: true, build: buildNode},
		{name: "local-only", once: true, build: func(c *Config, _ *fields) { c.LocalOnly = true }},
		{name: "log-level", main: "level", once: true, build: func(c *Config, f *fields) {
			c.LogLevel = get(f, "level", slog.LevelError, asLevel) // Receptor's default, where the item has no level
		}},
		{name: "control-service", build: buildControlService},
		{name: "work-command", build: buildWorkCommand},
		{name: "legacy-control", main: "filename", once: true, ours: true, build: buildLegacyControl},

		{name: "metrics", main: "listen", once: true, ours: true, build: buildMetrics},

		{name: "trace", any: true, build: noEffect("messages are not traced; log-level debug tells most")},
		{name: "work-python", any: true, build: noEffect("work in a Python module is not run; use work-command")},
		{name: "ip-router", any: true, build: noEffect("no IP interface is made")},
		{name: "work-kubernetes", build: buildKubernetes},
	}
	items = append(items, linkItems()...)
	items = append(items, workPolicyItems()...)
	items = append(items, tlsItems()...)
	items = append(items, certItems()...)
	items = append(items, serviceItems()...)
	return items
}

func buildNode(c *Config, f *fields) {
	c.Node = Node{
		Pos:      f.pos,
		ID:       get(f, "id", "", asOwnID),
		DataDir:  get(f, "datadir", "", asText),
		Leaf:     get(f, "leaf", false, asBool),
		Identity: get(f, "identity", "", asText),
		Insecure: get(f, "insecure", false, asBool),

		ContentLimit: get(f, "contentlimit", 0, asLimit),
		ResumeTime:   get(f, "resumetime", 0, asResumeTime),
		StreamMemory: get(f, "streammemory", 0, asStreamMemory),
	}
	c.FirewallRules = firewallRules(f)
	if get(f, "maxidleconnectiontimeout", -1, asDuration) != time.Duration(-1) {
		f.warnf("maxidleconnectiontimeout", "has no effect: links have heartbeats, and a silent one is noticed in seconds")
	}
	for _, key := range f.keys() {
		if strings.HasPrefix(key, "receptorkube") {
			f.take(key)
			f.warnf(key, "has no effect: work in Kubernetes is not run by this version")
		}
	}
}

func buildControlService(c *Config, f *fields) {
	i := len(c.ControlServices)
	c.ControlServices = append(c.ControlServices, ControlService{
		Pos:         f.pos,
		Service:     get(f, "service", "control", asName),
		Filename:    get(f, "filename", "", asText),
		Permissions: f.mode("permissions", 0o600),
		TCPListen:   get(f, "tcplisten", "", asListen),
	})
	f.tls("tls", server, func(c *Config, t *TLS) { c.ControlServices[i].TLS = t })
	f.tls("tcptls", server, func(c *Config, t *TLS) { c.ControlServices[i].TCPTLS = t })
	if f.has("tcptls") && !f.has("tcplisten") {
		f.warnf("tcptls", "has no effect without tcplisten")
	}
}

func buildWorkCommand(c *Config, f *fields) {
	c.WorkCommands = append(c.WorkCommands, WorkCommand{
		Pos:                f.pos,
		WorkType:           need(f, "worktype", asName),
		Command:            need(f, "command", asText),
		Params:             get(f, "params", "", asString),
		AllowRuntimeParams: get(f, "allowruntimeparams", false, asBool),
		VerifySignature:    get(f, "verifysignature", false, asBool),
	})
}

// kubernetesKeys are the keys of work-kubernetes beside worktype.
func kubernetesKeys() []string {
	return []string{"namespace", "image", "command", "params", "authmethod", "kubeconfig", "pod", "allowruntimeauth",
		"allowruntimecommand", "allowruntimeparams", "allowruntimepod", "deletepodonrestart", "streammethod", "verifysignature"}
}

// buildKubernetes knows the item and looks at no value but the name.
func buildKubernetes(c *Config, f *fields) {
	w := Kubernetes{Pos: f.pos, WorkType: need(f, "worktype", asName)}
	for _, key := range kubernetesKeys() {
		f.take(key)
	}
	c.Kubernetes = append(c.Kubernetes, w)
	f.rep.warnf(f.pos, "", "work in Kubernetes is not run by this version: work of the type %q is refused", w.WorkType)
}

// noEffect builds an item that is Receptor's, is harmless to leave out, and
// does nothing here.
func noEffect(why string) func(*Config, *fields) {
	return func(_ *Config, f *fields) {
		f.rep.warnf(f.pos, "", "has no effect: %s", why)
	}
}

// build gives every raw item to its line of the table.
func build(c *Config, raws []rawItem, rep *report) {
	byName := map[string]item{}
	var names []string
	for _, it := range table() {
		byName[it.name] = it
		names = append(names, it.name)
	}
	first := map[string]Pos{} // item to its first place
	for _, raw := range raws {
		it, ok := byName[strings.ToLower(raw.pos.Item)]
		if !ok {
			rep.unread = true
			rep.errorf(Pos{File: raw.pos.File, Line: raw.pos.Line}, "",
				"unknown item %q%s", raw.pos.Item, didYouMean(raw.pos.Item, names))
			continue
		}
		raw.pos.Item = it.name
		if before, again := first[it.name]; again && it.once {
			rep.errorf(raw.pos, "", "it may stand only once, and stands on %s already", before.Place())
			continue
		} else if !again {
			first[it.name] = raw.pos
		}
		if f, ok := readFields(it, raw, rep); ok {
			it.build(c, f)
			f.reportUnknown()
		}
	}
	for _, f := range rep.later {
		f(c)
	}
}
