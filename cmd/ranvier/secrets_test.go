package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The environment is part of the stream, as programs that read it rely on. It
// is in no log, whatever is logged.
func TestEnvironmentIsInNoLog(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-of-the-environment"
	dir := privateDataDir(t, project)
	tl := named(t, "ranvier", "API_TOKEN="+secret)
	log := filepath.Join(t.TempDir(), "log")
	sent := tl.run(t, "", "transmit", dir, "-p", "site.yml", "--debug", "--logfile", log)
	said := tl.run(t, sent.out, "worker", "--debug", "--logfile", log)
	done := tl.run(t, said.out, "process", t.TempDir(), "--debug", "--logfile", log)
	ran := tl.run(t, "", "run", dir, "-p", "site.yml", "--debug")
	if !strings.Contains(said.out, secret) {
		t.Errorf("it is not in the stream: %s", said.out)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "job ended") || !strings.Contains(ran.errors, "job ended") {
		t.Errorf("nothing is logged: %v, %s, %+v", err, text, ran)
	}
	for what, text := range map[string]string{"logfile": string(text), "transmit": sent.errors, "worker": said.errors,
		"process": done.errors + done.out, "run": ran.errors + ran.out} {
		if strings.Contains(text, secret) {
			t.Errorf("%s: the environment is in it: %s", what, text)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
