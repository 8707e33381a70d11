package main

import (
	"context"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
)

// jobsDie tells why what a node has started would end with the node; empty
// where it does not. Keepers and jobs go on when their node ends, if nobody ends
// them with it.
func jobsDie(ctx context.Context) string {
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	return whyJobsDie(os.Getpid(), os.Getenv("INVOCATION_ID") != "", string(cgroup), func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
		return string(out), err
	})
}

// whyJobsDie is jobsDie of a process. invoked says that systemd has started it
// or what started it.
func whyJobsDie(pid int, invoked bool, cgroup string, systemctl func(args ...string) (string, error)) string {
	if pid == 1 {
		return "it is the first process of its container, with which all others end"
	}
	unit, user := serviceOf(cgroup)
	if !invoked || unit == "" {
		return ""
	}
	args := []string{"show", "--property=KillMode", "--value", "--", unit}
	if user {
		args = append([]string{"--user"}, args...)
	}
	out, err := systemctl(args...)
	if mode := strings.TrimSpace(out); err == nil && mode != "" && mode != "process" && mode != "none" {
		return "the unit " + unit + " has KillMode=" + mode + ": write KillMode=process (packaging/systemd has a drop-in)"
	}
	return ""
}

// serviceOf returns the service of systemd that a process is in, from its
// /proc/PID/cgroup, and whether it is one of a user's own systemd.
func serviceOf(cgroup string) (unit string, user bool) {
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, ok := strings.Cut(rest, ":")
		if !ok || controllers != "" && controllers != "name=systemd" {
			continue
		}
		for ; dir != "/" && dir != "."; dir = path.Dir(dir) {
			if base := path.Base(dir); strings.HasSuffix(base, ".service") && !strings.HasPrefix(base, "user@") {
				return base, strings.Contains(dir, "/user@")
			}
		}
	}
	return "", false
}
