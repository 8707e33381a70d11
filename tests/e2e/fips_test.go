package e2e

import (
	"cmp"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fipsEnv names the version of Go's cryptographic module to build with. The
// default is that of the toolchain itself, for which nothing is compiled anew;
// v1.0.0 takes a minute the first time.
const fipsEnv = "RANVIER_E2E_FIPS"

// TestFIPS runs a mesh and a job with a program that has nothing but the FIPS
// 140-3 module of the Go toolchain for its cryptography.
func TestFIPS(t *testing.T) {
	t.Parallel()
	program(t) // all else is compiled then
	bin := filepath.Join(t.TempDir(), "ranvier")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/ranvier")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFIPS140="+cmp.Or(os.Getenv(fipsEnv), "latest"))
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "unknown GOFIPS140 version") || strings.Contains(string(out), "fips140") && strings.Contains(string(out), "no such file") {
			t.Skipf("this toolchain has no such module: %s", out)
		}
		t.Fatalf("go build: %v\n%s", err, out)
	}
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	on := false
	for _, s := range info.Settings {
		on = on || s.Key == "DefaultGODEBUG" && strings.Contains(s.Value, "fips140=on")
	}
	if !on {
		t.Fatalf("the program is not in FIPS mode: %v", info.Settings)
	}

	place := func() *host { return &host{t: t, home: t.TempDir(), bin: bin} }
	hub, edge, user := place(), place(), place()
	hubDir, edgeDir, addr := filepath.Join(hub.home, "data"), filepath.Join(edge.home, "data"), freePort(t)
	pass := filepath.Join(hub.home, "pass")
	write(t, pass, "a passphrase")
	hub.ok("ca", "init", "--mesh", "fips", "--id", "hub", "--dir", hubDir, "--listen", addr, "--passphrase-file", pass)
	hub.node(hubDir)
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(hub.ok(append([]string{"ca", "token", "--dir", hubDir}, args...)...))
	}
	edge.ok("join", token("--id", "edge"), "--dir", edgeDir, "--listen", "none")
	edge.node(edgeDir)
	hub.ok("ping", "edge", "--socket", filepath.Join(hubDir, "control.sock"), "-n", "1", "--wait", patience.String())
	user.ok("join", token("--role", "client", "--id", "user", "--work", "ansible-runner"))
	p := newProject(t, "- debug: {msg: approved}\n")
	run := user.start("run", p.dir, "-p", "test.yml", "-i", "job", "--sign", "--via-receptor", "edge", "--receptor-peer", addr)
	run.exits(0)
	if !strings.Contains(run.stdout.String(), "approved") {
		t.Errorf("output: %s", run.stdout)
	}
	// A program in the ordinary mode and this one understand each other.
	plain := &host{t: t, home: user.home}
	plain.ok("ping", "edge", "-n", "1", "--receptor-peer", addr)
}
