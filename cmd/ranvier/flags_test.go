package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestFlagsOfThePythonToolAreThere goes through the Python tool's commands and
// flags, by either name of the program.
func TestFlagsOfThePythonToolAreThere(t *testing.T) {
	t.Parallel()
	generic := strings.Fields("--version --debug --logfile")
	job := strings.Fields("-b --binary -i --ident --rotate-artifacts --artifact-dir --project-dir --inventory -j --json --omit-event-data " +
		"--only-failed-event-data --omit-env-files -q --quiet -v -p --playbook -m --module -r --role --limit --cmdline --hosts --forks " +
		"--roles-path --role-vars --role-skip-facts -a --args --container-image --container-volume-mount --container-option")
	isolation := strings.Fields("--process-isolation --process-isolation-executable --process-isolation-path --process-isolation-hide-paths " +
		"--process-isolation-show-paths --process-isolation-ro-paths --directory-isolation-base-path")
	for path, flags := range map[string][]string{
		"run": slices.Concat(job, isolation), "start": slices.Concat(job, isolation),
		"stop": job, "is-alive": job, "transmit": job,
		"worker":         strings.Fields("--private-data-dir --worker-info --delete --keepalive-seconds"),
		"worker cleanup": strings.Fields("--file-pattern --exclude-strings --remove-images --grace-period --image-prune --process-isolation-executable"),
		"process":        strings.Fields("-i --ident"),
	} {
		for name, root := range roots() {
			cmd, rest, err := root.Find(strings.Fields(path))
			if err != nil || len(rest) > 0 {
				t.Errorf("%s %s: %v", name, path, err)
				continue
			}
			for _, flag := range slices.Concat(flags, generic) {
				if long, ok := strings.CutPrefix(flag, "--"); ok && cmd.Flags().Lookup(long) == nil ||
					!ok && cmd.Flags().ShorthandLookup(flag[1:]) == nil {
					t.Errorf("%s %s has no %s", name, path, flag)
				}
			}
		}
	}
}

// TestFlagsAreExplained: every flag that is shown has a text, and one letter
// means one thing.
func TestFlagsAreExplained(t *testing.T) {
	t.Parallel()
	for name, root := range roots() {
		letters := map[string]string{}
		for _, cmd := range root.Commands() {
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("%s %s --%s says nothing", name, cmd.Name(), f.Name)
				}
			})
			if !slices.ContainsFunc(runnerCommands(), func(c *cobra.Command) bool { return c.Name() == cmd.Name() }) {
				continue
			}
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				if other := letters[f.Shorthand]; f.Shorthand != "" && other != "" && other != f.Name {
					t.Errorf("%s: -%s is --%s and --%s", name, f.Shorthand, other, f.Name)
				}
				letters[f.Shorthand] = f.Name
			})
		}
	}
}

// TestFlagsAreOnThePage: who comes from ansible-runner finds each flag.
func TestFlagsAreOnThePage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/moving-from-ansible-runner.md")
	if err != nil {
		t.Fatal(err)
	}
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			long, short := regexp.MustCompile("--"+f.Name+"[^a-z-]").Match(text), f.Shorthand != "" && strings.Contains(string(text), "`-"+f.Shorthand+"`")
			if !long && !short && !strings.HasPrefix(f.Name, "process-isolation-") {
				t.Errorf("%s --%s is not on the page", cmd.CommandPath(), f.Name)
			}
		})
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	for _, cmd := range runnerCommands() {
		each(cmd)
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ given, want, long string }{
		{given: "run d -p x", want: "run d -p x"},
		{given: "--debug run d -p x", want: "run --debug d -p x"},
		{given: "-i run --logfile start run d -p x", want: "run -i run --logfile start d -p x"},
		{given: "-vj run d", want: "run -vj d"},
		{given: "run d --process-isolation-hide-paths /a /b -p x", want: "run d --process-isolation-hide-paths=/a --process-isolation-hide-paths=/b -p x"},
		{given: "run d --process-isolation-hide-paths=/a /b", want: "run d --process-isolation-hide-paths=/a /b"},
		{given: "run d --process-isolation-hide-paths -p x", want: "run d -p x"},
		{given: "worker cleanup --exclude-strings a b --grace-period 0", want: "worker cleanup --exclude-strings=a --exclude-strings=b --grace-period 0"},
		{given: "worker --debug cleanup --file-pattern x", want: "worker cleanup --debug --file-pattern x"},
		{given: "run d --cmdline --forks --limit -x", want: "run d --cmdline --forks --limit -x"},
		{given: "run d -a -x -vp -y -pz run", want: "run d -a -x -vp -y -pz run"},
		{given: "run d -p=x --playbook=y", want: "run d -p=x --playbook=y"},
		{given: "run start stop", want: "run start stop"},
		{given: "run d -- --debug -p", want: "run d -- --debug -p"},
		{given: "run d --omit_event_data --project_dir=a_b", want: "run d --omit-event-data --project-dir=a_b"},
		{given: "worker --private_data_dir /a_b --delete", want: "worker --private-data-dir /a_b --delete"},
		{given: "bogus run", want: "bogus run"},
		{given: "run d --bogus run -p x", want: "run d --bogus run -p x"},
		{given: "run d --playb x --rot 3", want: "run d --playb x --rot 3", long: "run d --playbook x --rotate-artifacts 3"},
		{given: "run d --process 3", want: "run d --process 3"}, // of several
		{given: "--playb=x run d", want: "run --playb=x d", long: "run --playbook=x d"},
		{given: "", want: ""},
	} {
		for name, root := range roots() {
			want := tc.want
			if name == runnerName && tc.long != "" {
				want = tc.long
			}
			got := strings.Join(normalize(root, strings.Fields(tc.given), name == runnerName), " ")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: %s", name, tc.given, diff)
			}
		}
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add("run\x00d\x00-vvp\x00x\x00--process-isolation-hide-paths\x00a")
	f.Add("-\x00--\x00-=\x00--=\x00-\xff")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		if got := normalize(newRoot(), args, true); len(got) > len(args) {
			t.Errorf("%q became %q", args, got)
		}
	})
}

// roots are the program by both its names.
func roots() map[string]*cobra.Command {
	return map[string]*cobra.Command{"ranvier": newRoot(), runnerName: newRunnerRoot()}
}
