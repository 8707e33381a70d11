package runner

import (
	"bytes"
	"encoding/json"
	"maps"
	"sync"

	"github.com/ranvier-mesh/ranvier/runner/internal/pyjson"
)

// Progress is how far a job has come.
type Progress struct {
	Status string // see Status.Status; empty before the first one
	Events int
	Play   string // the play and the task that began last, by name; with the
	Task   string // free strategy others may still be under way

	// Hosts are the hosts that something is known of, by name. With
	// Options.OmitEventData there are none.
	Hosts map[string]HostProgress
}

// HostProgress counts the tasks of a host as Ansible's recap does. While the
// play runs, a failure that a rescue section will catch counts as failed; the
// play's last event sets it right.
type HostProgress struct {
	OK          int `json:"ok"` // the changed ones included
	Changed     int `json:"changed"`
	Failed      int `json:"failed"`
	Unreachable int `json:"unreachable"`
	Skipped     int `json:"skipped"`
	Rescued     int `json:"rescued"`
	Ignored     int `json:"ignored"`
}

// Monitor turns a job's events into its progress. It keeps a few numbers a host
// and nothing of the events. The zero value is ready; all methods may be called
// concurrently.
type Monitor struct {
	mu sync.Mutex
	p  Progress
}

// Progress returns how far the job has come. It is the caller's own.
func (m *Monitor) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.p
	p.Hosts = maps.Clone(p.Hosts)
	return p
}

// Watch returns o with handlers that tell m first and then call those of o.
func (m *Monitor) Watch(o ProcessOptions) ProcessOptions {
	event, status := o.EventHandler, o.StatusHandler
	o.EventHandler = func(e Event) bool {
		m.Event(e)
		return event == nil || event(e)
	}
	o.StatusHandler = func(s Status) {
		m.Status(s)
		if status != nil {
			status(s)
		}
	}
	return o
}

// Status takes note of a change of the job's state.
func (m *Monitor) Status(s Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Status = s.Status
}

// Event takes note of an event. One whose data are not what they should be
// counts, and says nothing.
func (m *Monitor) Event(e Event) {
	d := eventData(e)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Events++
	switch e.Name {
	case "playbook_on_play_start":
		m.p.Play, m.p.Task = d.text("name"), ""
	case "playbook_on_task_start", "playbook_on_handler_task_start":
		m.p.Task = d.text("name")
	case "playbook_on_stats":
		m.stats(d)
	}
	count := outcome(e.Name, d)
	host := d.text("host")
	if count == nil || host == "" {
		return
	}
	h := m.p.Hosts[host]
	count(&h)
	if m.p.Hosts == nil {
		m.p.Hosts = make(map[string]HostProgress)
	}
	m.p.Hosts[host] = h
}

// outcome returns what an event changes in its host's numbers, nil for most.
func outcome(name string, d data) func(*HostProgress) {
	changed := 0
	if res := d["res"]; name == "runner_on_ok" || name == "runner_on_failed" {
		if bytes.Equal(members(res, "changed")["changed"], []byte("true")) {
			changed = 1
		}
	}
	switch name {
	case "runner_on_ok":
		return func(h *HostProgress) { h.OK++; h.Changed += changed }
	case "runner_on_failed":
		if bytes.Equal(d["ignore_errors"], []byte("true")) {
			return func(h *HostProgress) { h.OK++; h.Ignored++; h.Changed += changed }
		}
		return func(h *HostProgress) { h.Failed++ }
	case "runner_on_unreachable":
		return func(h *HostProgress) { h.Unreachable++ }
	case "runner_on_skipped":
		return func(h *HostProgress) { h.Skipped++ }
	}
	return nil
}

// stats takes Ansible's own numbers, which are final.
func (m *Monitor) stats(d data) {
	hosts := make(map[string]HostProgress)
	for key, field := range map[string]func(*HostProgress) *int{
		"processed": func(*HostProgress) *int { return new(int) }, // every host, even where all else is 0
		"ok":        func(h *HostProgress) *int { return &h.OK },
		"changed":   func(h *HostProgress) *int { return &h.Changed },
		"failures":  func(h *HostProgress) *int { return &h.Failed },
		"dark":      func(h *HostProgress) *int { return &h.Unreachable },
		"skipped":   func(h *HostProgress) *int { return &h.Skipped },
		"rescued":   func(h *HostProgress) *int { return &h.Rescued },
		"ignored":   func(h *HostProgress) *int { return &h.Ignored },
	} {
		var numbers map[string]int
		if json.Unmarshal(d[key], &numbers) != nil {
			continue
		}
		for host, n := range numbers {
			h := hosts[host]
			*field(&h) = n
			hosts[host] = h
		}
	}
	if len(hosts) > 0 {
		m.p.Hosts = hosts
	}
}

// data are the members of an event's event_data that are looked at, as JSON.
type data map[string][]byte

// eventData decodes only what it must: results may be large.
func eventData(e Event) data {
	var names []string
	switch e.Name {
	case "playbook_on_play_start", "playbook_on_task_start", "playbook_on_handler_task_start":
		names = []string{"name"}
	case "runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped":
		names = []string{"host", "res", "ignore_errors"}
	case "playbook_on_stats":
		names = []string{"processed", "ok", "changed", "failures", "dark", "skipped", "rescued", "ignored"}
	default:
		return nil
	}
	return members(members(e.Raw, "event_data")["event_data"], names...)
}

// members returns those of an object's members that are named.
func members(object []byte, names ...string) data {
	d := make(data, len(names))
	// What is no object has no members.
	_ = pyjson.Object(object, func(key, value []byte) {
		for _, name := range names {
			if string(key) == name {
				d[name] = value
			}
		}
	})
	return d
}

func (d data) text(name string) string {
	s, err := pyjson.Unquote(d[name])
	if err != nil {
		return ""
	}
	return s
}
