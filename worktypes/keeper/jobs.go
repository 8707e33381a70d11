package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ranvier-mesh/ranvier/internal/process"
	"github.com/ranvier-mesh/ranvier/worktypes"
)

// start starts a job unless it was started before.
func (k *keeper) start(l *worktypes.Launch) (process.ID, error) {
	if l == nil || len(l.Argv) == 0 || l.Unit == "" {
		return process.ID{}, fmt.Errorf("a start without a job")
	}
	k.starting.RLock()
	defer k.starting.RUnlock()
	stdout, err := worktypes.ClaimStart(l.Dir)
	if err != nil {
		return process.ID{}, err
	}
	stdin, stderr, err := worktypes.JobFiles(*l)
	if err != nil {
		stdout.Close()
		return process.ID{}, err
	}
	defer worktypes.CloseFiles(stdin, stderr)
	k.mu.Lock()
	defer k.mu.Unlock()
	cgroup := k.cgroups.make(l.Unit)
	pid, err := fork(l, cgroup, stdin, stdout, stderr)
	if err != nil {
		stdout.Close()
		k.cgroups.remove(cgroup)
		return process.ID{}, err
	}
	// It is a zombie at least: nobody reaps it while mu is held.
	root, err := process.Identify(pid)
	if err != nil {
		root = process.ID{PID: pid}
	}
	if err := k.records.Started(l.Unit, worktypes.Started{ID: root, Boot: process.Boot()}); err != nil {
		k.log.Error("cannot write the start record", "unit", l.Unit, "error", err)
	}
	// The strings are copies: a line has a whole environment in it.
	j := &kept{job: job{Unit: strings.Clone(l.Unit), Root: root}, dir: strings.Clone(l.Dir), cgroup: cgroup, stdout: stdout, user: l.User}
	j.family = process.NewFamily(root, j.Unit)
	k.jobs[j.Unit], k.pids[pid] = j, j
	return root, nil
}

// fork starts the process. It is os/exec's way without os/exec, whose Wait would
// take the child's end from us.
func fork(l *worktypes.Launch, cgroup string, stdin, stdout, stderr *os.File) (int, error) {
	path, err := lookPath(l)
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", l.Argv[0], err)
	}
	if stdin == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return 0, err
		}
		defer null.Close()
		stdin = null
	}
	if stderr == nil {
		stderr = stdout
	}
	dir := l.WorkDir
	if dir == "" {
		dir = "/"
	}
	attr := &syscall.ProcAttr{
		Dir:   dir,
		Env:   append(slices.Clip(l.Env), process.MarkName+"="+l.Unit),
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: l.User.Credential()},
	}
	if cgroup != "" {
		d, err := os.Open(cgroup)
		if err != nil {
			return 0, fmt.Errorf("start %q: %w", l.Argv[0], err)
		}
		defer d.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(d.Fd())
	}
	pid, err := syscall.ForkExec(path, l.Argv, attr)
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", l.Argv[0], err)
	}
	return pid, nil
}

// lookPath finds the program in the PATH of the job's environment, not of this
// process, which may be older than the node's settings.
func lookPath(l *worktypes.Launch) (string, error) {
	name := l.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := ""
	for _, e := range l.Env { // the last one wins
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if filepath.IsAbs(dir) {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", exec.ErrNotFound
}

// reap takes the ends of all children that have ended: jobs, and what they left
// behind.
func (k *keeper) reap() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if j := k.pids[pid]; j != nil {
			delete(k.pids, pid)
			k.ended(j, ws)
		}
	}
}

// ended writes a job's end down and tells the node. While no node is there that
// makes it durable, the record is synced here, after the output. It is called
// with mu held.
func (k *keeper) ended(j *kept, ws syscall.WaitStatus) {
	exit := worktypes.Exit{Code: ws.ExitStatus()} // -1 for a signal
	if ws.Signaled() {
		exit.Signal = int(ws.Signal())
		// Somebody killed the job's first process; the rest of it is without
		// supervision. What a job leaves running when it exits, it meant to.
		k.kills.Go(func() {
			if err := k.kill(j.Unit); err != nil {
				k.log.Error("a part of a killed job does not end", "unit", j.Unit, "error", err)
			}
		})
	}
	exit.Look(j.stdout, j.user)
	j.Exit = &exit
	if err := k.records.Exited(j.Unit, exit); err != nil {
		k.log.Error("cannot write the exit record", "unit", j.Unit, "error", err)
	}
	told := message{Unit: j.Unit, Exit: &exit}
	for c := range k.nodes {
		go c.send(told) // a node that does not read holds up nobody
	}
	if len(k.nodes) == 0 {
		k.settle(j)
	}
}

// settle makes the end of a job durable that no node does that for, and drops it. It is
// called with mu held.
func (k *keeper) settle(j *kept) {
	if j.Exit == nil {
		return
	}
	dir := j.dir
	k.kills.Go(func() {
		if err := k.records.SyncExit(dir); err != nil {
			k.log.Error("cannot sync the exit record", "dir", dir, "error", err)
			return
		}
		k.drop(j.Unit) // the record tells
	})
}
