package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ranvier-mesh/ranvier/worktypes"
)

// awxExecution and awxController are the files that AWX's installer writes for an
// execution node and a controller; DIR, PORT and keys are the test's.
const (
	awxExecution = `---
- node:
    id: exec
    datadir: DIR/exec
- work-verification:
    publickey: PUBLIC
- log-level: info
- control-service:
    service: control
    filename: DIR/exec.sock
    permissions: 0660
    tls: tls_server
- tls-server:
    name: tls_server
    cert: DIR/exec.crt
    key: DIR/exec.key
    clientcas: DIR/ca.crt
    requireclientcert: true
    mintls13: False
- tls-client:
    name: tls_client
    cert: DIR/exec.crt
    key: DIR/exec.key
    rootcas: DIR/ca.crt
    insecureskipverify: false
    mintls13: False
- tcp-listener:
    port: 0
    tls: tls_server
- work-command:
    worktype: ansible-runner
    command: DIR/ansible-runner
    params: worker
    allowruntimeparams: True
    verifysignature: True
`
	awxController = `---
- node:
    id: controller
    datadir: DIR/controller
    firewallrules:
      - action: "reject"
        tonode: controller
        toservice: "control"
- log-level: info
- local-only:
- work-signing:
    privatekey: PRIVATE
    tokenexpiration: 1m
- work-verification:
    publickey: PUBLIC
- control-service:
    service: control
    filename: DIR/controller.sock
    permissions: 0660
- work-command:
    worktype: local
    command: DIR/ansible-runner
    params: worker
    allowruntimeparams: True
- work-kubernetes:
    worktype: kubernetes-runtime-auth
    authmethod: runtime
    allowruntimeauth: true
    allowruntimepod: true
    allowruntimeparams: true
- work-kubernetes:
    worktype: kubernetes-incluster-auth
    authmethod: incluster
    allowruntimeauth: true
    allowruntimepod: true
    allowruntimeparams: true
- tls-client:
    name: tlsclient
    cert: DIR/controller.crt
    key: DIR/controller.key
    rootcas: DIR/ca.crt
    insecureskipverify: false
    mintls13: False
- tcp-peer:
    address: 127.0.0.1:PORT
    redial: true
    tls: tlsclient
`
)

// TestAWX has nodes with AWX's files, and goes through what AWX does at a
// controller's control socket in the course of a job.
func TestAWX(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cert("exec", "exec")
	s.cert("controller", "controller")
	private, public := rsaKey(t)
	// in ansible-runner's place: its arguments and its input
	if err := os.WriteFile(s.file("ansible-runner"), []byte("#!/bin/sh\necho \"$@\"\nexec cat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	words := strings.NewReplacer("DIR", s.dir, "PUBLIC", public, "PRIVATE", private)
	exec, _ := run(t, words.Replace(awxExecution))
	controller, log := run(t, strings.ReplaceAll(words.Replace(awxController), "PORT", port(t, exec)))
	pings(t, controller, "exec")
	if n := strings.Count(log.String(), "work in Kubernetes is not run"); n != 2 {
		t.Errorf("%d warnings of work-kubernetes:\n%s", n, log)
	}
	socket := filepath.Join(s.dir, "controller.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	client := func() *talk { // each call of receptorctl begins so
		c := dialSocket(t, socket)
		c.expect(`{"command": "status", "requested_fields": ["Version"]}`, `{"Version":"[^"]+"}`)
		return c
	}
	do := func(node, kind, params, payload, more string) (id, output string) {
		t.Helper()
		id, reply := client().submit(fmt.Sprintf(`{"command": "work", "subcommand": "submit", "node": %q, "worktype": %q, "params": %q%s}`, node, kind, params, more), payload)
		if want := `"unitid":"` + id + `"}`; !strings.HasSuffix(reply, want) {
			t.Errorf("reply %s", reply)
		}
		return id, results(t, socket, id, `{"command": "work", "subcommand": "results", "unitid": "`+id+`"}`)
	}
	const over = `, "signwork": "true", "tlsclient": "tlsclient"`
	release := func(id string) {
		t.Helper()
		client().expect(`{"command": "work", "subcommand": "release", "unitid": "`+id+`"}`, `{"released":"`+id+`"}`)
	}

	// the heartbeat of an execution node
	id, out := do("exec", "ansible-runner", "--worker-info", "", over+`, "ttl": "20s"`)
	if out != "worker --worker-info\n" {
		t.Errorf("worker info: %q", out)
	}
	release(id)
	// a job: status while and after, then the reaper's look at all units
	id, out = do("exec", "ansible-runner", "--private-data-dir=/tmp/awx_1_x --delete", "the transmit stream", over)
	if out != "worker --private-data-dir=/tmp/awx_1_x --delete\nthe transmit stream" {
		t.Errorf("job: %q", out)
	}
	client().expect(`{"command": "work", "subcommand": "status", "unitid": "`+id+`"}`, `{"State":2,"StateName":"Succeeded","Detail":"exit status 0","StdoutSize":\d+,"WorkType":"remote","ExtraData":{.*}}`)
	var units map[string]struct {
		ExtraData *struct {
			RemoteWorkType string
			RemoteParams   map[string]string
		}
	}
	local, out := do("localhost", "local", "cleanup --file-pattern=/tmp/awx_*", "", `, "signwork": "true"`)
	if out != "worker cleanup --file-pattern=/tmp/awx_*\n" {
		t.Errorf("clean-up: %q", out)
	}
	brokered := worktypes.NewID() // what "ranvier run" leaves with the controller has no parameters
	if _, err := controller.work.Submit(worktypes.Spec{ID: brokered, Owner: "controller", Node: "exec", Type: "ansible-runner"}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(client().ask("work list")), &units); err != nil {
		t.Fatal(err)
	}
	if u := units[id]; u.ExtraData == nil || u.ExtraData.RemoteWorkType != "ansible-runner" || u.ExtraData.RemoteParams["params"] != "--private-data-dir=/tmp/awx_1_x --delete" {
		t.Errorf("the job in work list: %+v", u.ExtraData)
	}
	if u, ok := units[local]; !ok || u.ExtraData != nil {
		t.Errorf("the controller's own unit in work list: %+v", u.ExtraData)
	}
	if u := units[brokered]; u.ExtraData == nil || u.ExtraData.RemoteParams == nil {
		t.Errorf("a play left with the controller: %+v; the reaper looks into its RemoteParams", u.ExtraData)
	}
	release(id)
	release(local)
	release(brokered)
	// without a signature the node refuses; in Kubernetes nothing runs
	id, _ = do("exec", "ansible-runner", "--worker-info", "", `, "tlsclient": "tlsclient"`)
	client().expect("work status "+id, `{"State":3,"StateName":"Failed","Detail":".*must be signed.*`)
	client().expect(`{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "kubernetes-incluster-auth", "secret_kube_pod": "x"}`, `ERROR: .*work in Kubernetes.*`)
	// the controller's rule keeps others out of it
	c := dialSocket(t, s.file("exec.sock"))
	c.expect("connect controller control", "ERROR: .*")
}

// TestKilledClient: who dies within the input of a unit has not ended it, and the
// unit is not started.
// A client may say how long its job's input is: then half of it never starts the job,
// also where nothing else tells that the client was killed.
func TestInputOfAToldSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n- work-command: {worktype: cat, command: cat}\n", dir, socket))
	for input, want := range map[string]string{"half": "Failed", "all of it": "Succeeded", "all of it, and more": "Succeeded"} {
		c := dialSocket(t, socket)
		m := c.expect(`{"command":"work","subcommand":"submit","node":"a","worktype":"cat","stdinsize":9,"grants":["bob"]}`, `Work unit created with ID ([A-Z0-9]+)\. .*`)
		fmt.Fprint(c, input)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if st := ended(t, a, m[1]); st.State.String() != want || want == "Succeeded" && st.StdoutSize != 9 {
			t.Errorf("%q: %+v", input, st)
		}
		if spec, err := a.work.Spec(m[1]); err != nil || !spec.Allows("bob/1") || spec.Allows("carol") {
			t.Errorf("%+v, %v", spec, err)
		}
		c.Close()
	}
	c := dialSocket(t, socket)
	c.expect(`{"command":"work","subcommand":"submit","node":"a","worktype":"cat","stdinsize":"x"}`, `ERROR: .*stdinsize.*`)
}

func TestKilledClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, mark := filepath.Join(dir, "a.sock"), filepath.Join(dir, "started")
	a := start(t, fmt.Sprintf("- node: {id: a, datadir: %s/a}\n- local-only\n- control-service: {filename: %s}\n- work-command: {worktype: touch, command: touch, params: %s}\n", dir, socket, mark))
	c := dialSocket(t, socket)
	m := c.expect("work submit a touch", `Work unit created with ID ([A-Z0-9]+)\. .*`)
	fmt.Fprint(c, "half of")
	c.Close()
	if st := ended(t, a, m[1]); st.State.String() != "Failed" {
		t.Errorf("%+v", st)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it was started")
	}
}
