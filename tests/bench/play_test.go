package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const trivialPlay = `- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=hello
`

// manyEvents has about so many events. Three of four are of items that Ansible
// skips, the least work that it can have with one, so that ours shows.
const manyEvents = `- hosts: all
  gather_facts: false
  tasks:
    - debug: msg="item {{ item }}"
      loop: "{{ range(0, %d) | list }}"
      when: item is divisibleby 4
`

// hostsAndTasks is a play of 10 tasks.
func hostsAndTasks() string {
	text := "- hosts: all\n  gather_facts: false\n  tasks:\n"
	for n := range 10 {
		text += fmt.Sprintf("    - debug: msg=task%d\n", n)
	}
	return text
}

// The ways of a job: command lines that begin in the private data directory.
const (
	ourPipe    = "$RANVIER transmit . -p test.yml | $RANVIER worker | $RANVIER process $RESULTS"
	pythonPipe = "ansible-runner transmit . -p test.yml | ansible-runner worker | ansible-runner process $RESULTS"
	ourRun     = "$RANVIER run . -p test.yml"
	pythonRun  = "ansible-runner run . -p test.yml"
	overLinks  = "$RANVIER run . -p test.yml --via-receptor $TARGET --receptor-peer $PEER"
)

// BenchmarkTrivialPlay runs a play of one task with ansible-playbook alone and in
// each of the ways, in turn: what counts is the time beyond ansible-playbook's.
func BenchmarkTrivialPlay(b *testing.B) {
	nodes := startNodes(b, 4, "")
	beyond := make(map[string][]float64)
	for range max(b.N, 5) {
		alone := plain(b, playDir(b, trivialPlay, 1))
		for _, way := range []string{ourPipe, overLinks, pythonPipe} {
			beyond[way] = append(beyond[way], wall(b, nodes, playDir(b, trivialPlay, 1), way)-alone)
		}
	}
	report(b, "trivial play, pipe: beyond ansible-playbook", "ms", beyond[ourPipe], beyond[pythonPipe])
	report(b, "trivial play, 3 links: beyond ansible-playbook", "ms", beyond[overLinks], beyond[pythonPipe])
}

// BenchmarkManyEvents compares plays with ansible-playbook alone: here, and over
// links.
func BenchmarkManyEvents(b *testing.B) {
	nodes := startNodes(b, 4, "")
	for _, s := range []struct{ events, rounds int }{{5000, 5}, {20_000, 3}} {
		b.Run(fmt.Sprint(s.events), func(b *testing.B) {
			took := make(map[string][]float64)
			var alone []float64
			for range max(b.N, s.rounds) {
				play := fmt.Sprintf(manyEvents, s.events)
				alone = append(alone, plain(b, playDir(b, play, 1)))
				for _, way := range []string{ourRun, overLinks, pythonRun} {
					took[way] = append(took[way], wall(b, nodes, playDir(b, play, 1), way))
				}
			}
			report(b, fmt.Sprintf("%d events, Python's run vs ansible-playbook", s.events), "ms", took[pythonRun], alone)
			report(b, fmt.Sprintf("%d events, 3 links vs ansible-playbook", s.events), "ms", took[overLinks], alone)
			report(b, fmt.Sprintf("%d events, run vs ansible-playbook", s.events), "ms", took[ourRun], alone)
		})
	}
}

// BenchmarkEventDelay takes the time from an event's creation to its arrival at
// who has submitted the play, and beside it at the end of Python's pipe.
func BenchmarkEventDelay(b *testing.B) {
	nodes := startNodes(b, 4, "")
	var ours, python []float64
	for range max(b.N, 3) {
		ours = append(ours, delays(b, nodes, overLinks+" --json")...)
		python = append(python, delays(b, nodes, "ansible-runner transmit . -p test.yml | ansible-runner worker")...)
	}
	for _, p := range []int{50, 99} {
		name := fmt.Sprintf("p%d", p)
		report(b, "an event's delay over 3 links, "+name, name+"_ms", []float64{percentile(ours, p)}, []float64{percentile(python, p)})
	}
}

// delays are those of a play's events, in milliseconds.
func delays(b *testing.B, nodes []*worker, way string) (list []float64) {
	b.Helper()
	cmd := shell(b, nodes, playDir(b, hostsAndTasks(), 20), way)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		now := time.Now().UTC()
		var e struct{ Created string }
		if err := json.Unmarshal(line, &e); err != nil || e.Created == "" {
			continue // a status or an archive
		}
		created, err := time.Parse("2006-01-02T15:04:05.999999", e.Created[:min(26, len(e.Created))]) // UTC, with a zone or without
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, now.Sub(created).Seconds()*1000)
	}
	if err := cmd.Wait(); err != nil || len(list) < 400 {
		b.Fatalf("%s: %d events, %v", way, len(list), err)
	}
	return list
}

// BenchmarkWorkerInfo starts a program that has little to say.
func BenchmarkWorkerInfo(b *testing.B) {
	bin := buildRanvier(b)
	var ours, python []float64
	for range max(b.N, 11) {
		ours = append(ours, program(b, nil, nil, bin, "worker", "--worker-info").seconds*1000)
		python = append(python, program(b, nil, nil, "ansible-runner", "worker", "--worker-info").seconds*1000)
	}
	report(b, "worker --worker-info", "ms", ours, python)
}

// wall runs a way and returns its milliseconds.
func wall(b *testing.B, nodes []*worker, dir, way string) float64 {
	b.Helper()
	cmd := shell(b, nodes, dir, way)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", way, err, out[max(0, len(out)-2000):])
	}
	return milliseconds(start)
}

func shell(b *testing.B, nodes []*worker, dir, way string) *exec.Cmd {
	b.Helper()
	last := nodes[len(nodes)-1]
	cmd := exec.Command("bash", "-o", "pipefail", "-c", way)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RANVIER="+last.cmd.Path, "TARGET="+last.id, "PEER="+nodes[0].address, "RESULTS="+kept(b))
	return cmd
}

// playDir is a private data directory with the play and so many hosts.
func playDir(b *testing.B, play string, hosts int) string {
	b.Helper()
	dir := kept(b)
	inventory := ""
	for n := range hosts {
		inventory += fmt.Sprintf("host%d ansible_connection=local\n", n)
	}
	for name, text := range map[string]string{"project/test.yml": play, "inventory/hosts": inventory} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func buildRanvier(b *testing.B) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "ranvier")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "../../cmd/ranvier")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return bin
}
