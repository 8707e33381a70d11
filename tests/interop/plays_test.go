package interop

import "strings"

// play is a job that both tools do in every combination.
type play struct {
	files map[string]string
	args  []string // of transmit, after the directory
	env   []string // of the workers
	rc    int
	// removed tells that newer Ansibles do not know what the play uses any more,
	// and end with 1.
	removed bool
	// order tells whether events come in the same order each time: with one
	// host they do.
	order bool
	slow  bool // only with -all
	newer bool // with the newer Ansible also without -all
	both  bool // transmitted by both tools, also without -all
	// tries is for plays that throw away what was typed too early: how often a
	// worker may run out of time, where its machine is that busy.
	tries int
}

const (
	python3 = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
	one     = "h1 " + python3
	two     = "h1 " + python3 + "h2 " + python3
)

// exit is the code that a tool's job ends with.
func (p play) exit(w tool) int {
	if p.removed && w.newer {
		return 1
	}
	return p.rc
}

// laxBytes lets newer Ansibles take bytes from modules that are no text.
const laxBytes = "ANSIBLE_MODULE_STRICT_UTF8_RESPONSE=False"

var plays = map[string]play{
	// Nearly all that Ansible can tell of, on one host.
	"all sorts": {
		order: true, both: true, newer: true, args: []string{"-p", "site.yml", "-v", "--cmdline=--diff"},
		env: []string{laxBytes},
		files: map[string]string{
			"inventory/hosts": one, "env/passwords": `{"Who.*:\\s*$": "me", "Secret.*:\\s*?$": "geheim"}`,
			"env/extravars": "word: grün", "env/settings": "idle_timeout: 300\njob_timeout: 600",
			"project/inc.yml": "- debug: {msg: \"included {{ item | default('') }}\"}\n", "project/imported.yml": "- hosts: h1\n  gather_facts: false\n  tasks: [ping: ]\n",
			"project/roles/r1/tasks/main.yml":    "- debug: msg=inrole\n  changed_when: true\n  notify: [tell, once more]\n",
			"project/roles/r1/handlers/main.yml": "- name: tell\n  debug: msg=told\n- name: say it\n  debug: msg=again\n  listen: once more\n",
			"project/site.yml": `
- name: prompts
  hosts: h1
  gather_facts: false
  vars_prompt:
  - {name: who, prompt: Who, private: false}
  - {name: secret, prompt: Secret}
  tasks:
  - debug: var=who
  - pause: {seconds: 1}
- name: many things
  hosts: h1
  gather_facts: false
  vars: {ansible_async_dir: "{{ playbook_dir }}/async"} # HOME is not the user's here
  roles: [r1]
  tasks:
  - meta: flush_handlers
  - debug: msg="hé {{ word }} 日本 🎼"
  - command: "printf 'a\\377b\\001\\n'"
  - set_fact: {x: "{{ item }}"}
    loop: [1, two, {three: 3}]
  - debug: msg={{ item }}
    with_items: [a, b]
    when: item != 'a'
  - command: echo {{ item }}
    no_log: true
    loop: [s1, s2]
  - command: echo hidden
    no_log: true
  - debug: msg=skipped
    when: false
  - include_tasks: inc.yml
    loop: [1, 2]
  - import_tasks: inc.yml
  - name: a block
    block:
    - fail: msg=no
    rescue:
    - debug: msg=rescued
    always:
    - debug: msg=always
  - command: /bin/false
    loop: [1]
    ignore_errors: true
  - command: /bin/false
    register: r
    until: r is success
    retries: 1
    delay: 0
    ignore_errors: true
  - command: sleep 3 # how often it is looked at depends on the machine
    async: 300
    poll: 1
  - command: /bin/false
    async: 300
    poll: 1
    ignore_errors: true
  - copy: {content: "x\n", dest: "{{ playbook_dir }}/made"}
  - set_stats: {data: {a: 1, b: [x]}}
  - set_stats: {data: {c: 1}, per_host: true}
  - setup: {gather_subset: ["!all", "!min", env]}
  - debug: msg={{ lookup('env', 'RANVIER_EVENTS_KEY') }}.
  - ping:
    changed_when: true
    when: "{{ true }}"
    notify: tell
- hosts: nobody
  tasks: [ping: ]
- import_playbook: imported.yml
`},
	},
	"failed": {
		order: true, both: true, rc: 2, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one,
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - fail: msg=no\n  - debug: msg=never\n  handlers: [{name: h, debug: }]\n"},
	},
	"failed without event data": {
		order: true, rc: 2, args: []string{"-p", "site.yml", "--omit-event-data"},
		files: map[string]string{"inventory/hosts": one,
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - fail: msg=no\n"},
	},
	"failed with its event data only": {
		order: true, rc: 2, args: []string{"-p", "site.yml", "--only-failed-event-data"},
		files: map[string]string{"inventory/hosts": one,
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=yes\n  - fail: msg=no\n"},
	},
	"unreachable": {
		order: true, both: true, rc: 4, newer: true, args: []string{"-p", "site.yml"},
		files: map[string]string{
			"inventory/hosts":  "nowhere ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=1'\n",
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - ping:\n"},
	},
	"unicode": {
		order: true, both: true, newer: true, args: []string{"-p", "spiel é.yml", "--limit", "größe"},
		files: map[string]string{
			"inventory/hosts": strings.Replace(one, "h1", "größe", 1), "env/extravars": "wort: grün 日本 🎼",
			"project/spiel é.yml": "- name: Schön\n  hosts: all\n  gather_facts: false\n  tasks:\n  - name: größer\n    debug: msg='{{ wort }} ü'\n"},
	},
	"no such playbook": {
		order: true, rc: 1, args: []string{"-p", "gone.yml"}, files: map[string]string{"inventory/hosts": one, "project/": ""},
	},
	"syntax error": {
		order: true, rc: 4, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one, "project/site.yml": "- hosts: all\n  tasks:\n  - nosuchmodule: x\n    debug: y\n"},
	},
	"verbose": {
		order: true, removed: true, args: []string{"-p", "site.yml", "-vvv"},
		files: map[string]string{"inventory/hosts": one,
			"project/site.yml":  "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=x\n  - include: other.yml\n",
			"project/other.yml": "- debug: msg=old\n"},
	},
	"module": {
		order: true, newer: true, args: []string{"-m", "debug", "-a", "msg=x", "--hosts", "all", "-j"}, files: map[string]string{"inventory/hosts": one},
	},
	"module that fails": {
		order: true, rc: 2, args: []string{"-m", "command", "-a", "/bin/false", "--hosts", "all"}, files: map[string]string{"inventory/hosts": one},
	},
	"role": {
		order: true, newer: true, args: []string{"-r", "greet", "--role-vars", "whom=you n=1", "--role-skip-facts", "--hosts", "h1"},
		files: map[string]string{"inventory/hosts": one, "project/roles/greet/tasks/main.yml": "- debug: msg='{{ whom }} {{ n + 1 }}'\n"},
	},
	"command line of its own": {
		order: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one, "args": "ansible-playbook -i ../inventory/hosts 'my play.yml'",
			"project/my play.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=x\n"},
	},
	"two hosts, free and serial": {
		newer: true, args: []string{"-p", "site.yml", "--forks", "2", "--limit", "h*"},
		files: map[string]string{"inventory/hosts": two, "env/cmdline": "--extra-vars a=1",
			"project/site.yml": `
- hosts: all
  strategy: free
  gather_facts: false
  tasks:
  - debug: msg=one
  - debug: msg=two
- hosts: all
  serial: 1
  gather_facts: false
  tasks:
  - debug: msg=one
    changed_when: true
    notify: h
  - debug: msg=two
    delegate_to: h1
  handlers: [{name: h, debug: {msg: handled}}]
`},
	},
	"a callback of the user's": {
		order: true, newer: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one, "env/envvars": "ANSIBLE_STDOUT_CALLBACK: mine\nJOB_ID: 77\nA_FLAG: yes",
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg=x\n  - command: echo {{ lookup('env', 'A_FLAG') }}\n",
			"project/callback_plugins/mine.py": `
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = 'stdout'
    CALLBACK_NAME = 'mine'
    def v2_playbook_on_start(self, playbook):
        self._display.display('servus')
    def v2_runner_on_ok(self, result):
        self._display.display('%s did %s' % (result._host.get_name(), result._task.get_name()))
        self._display.display('a second line')
`},
	},
	"includes and roles of roles": {
		order: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one,
			"project/roles/r1/meta/main.yml":     "dependencies: [r2]\n",
			"project/roles/r1/tasks/main.yml":    "- import_tasks: more.yml\n- include_role: {name: r2, tasks_from: other}\n",
			"project/roles/r1/tasks/more.yml":    "- debug: msg=more\n",
			"project/roles/r2/tasks/main.yml":    "- debug: msg=needed\n",
			"project/roles/r2/tasks/other.yml":   "- debug: msg='{{ item }}'\n  loop: [1, 2]\n  loop_control: {label: 'no. {{ item }}'}\n  notify: h\n  changed_when: true\n",
			"project/roles/r2/handlers/main.yml": "- name: h\n  debug: msg=handled\n",
			"project/site.yml":                   "- hosts: all\n  gather_facts: false\n  roles: [r1]\n  post_tasks:\n  - import_role: {name: r2}\n    tags: [x]\n"},
	},
	// Bytes that are no text, in results, in what a lookup brings, and in facts.
	"binary output": {
		order: true, both: true, newer: true, args: []string{"-p", "site.yml", "-v"},
		env: []string{"ANSIBLE_MODULE_STRICT_UTF8_RESPONSE=False"}, // newer ones do not take it by themselves
		files: map[string]string{"inventory/hosts": one, "project/latin1": "gr\xfcn\x00\xff\r\n",
			"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - command: cat latin1
    args: {chdir: "{{ playbook_dir }}"}
    register: r
  - debug: var=r.stdout
  - raw: "printf '\\000\\001\\033[31m\\377\\376\\200\\n'"
  - command: "printf '%s' '{{ item }}'"
    loop: ["\u2028", "\u0085x\u0007", "\U0010ffff"]
  - shell: "printf 'to stderr \\355\\240\\200' >&2; exit 3"
    ignore_errors: true
  - set_stats: {data: {bytes: "{{ r.stdout }}"}}
`},
	},
	// A program that is no Ansible and writes bytes to its terminal.
	"binary output outside of events": {
		order: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one, "project/": "",
			"args": `sh -c "printf 'a\\377b\\303\\n\\303\\274\\001c\\n'"`},
	},
	// A question in the middle of a play, that is answered.
	"pause that asks": {
		order: true, tries: 3, newer: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one, "env/passwords": `{"Go on.*:\\s*$": "yes", "Quietly.*:\\s*$": "geheim"}`,
			"env/settings": "idle_timeout: 30",
			"project/site.yml": `
- hosts: all
  gather_facts: false
  tasks:
  - pause: {prompt: Go on}
    register: r
  - debug: msg=said-{{ r.user_input }}
  - pause: {prompt: Quietly, echo: false}
    no_log: true
  - debug: msg=after
`},
	},
	"10,000 events": {
		order: true, slow: true, args: []string{"-p", "site.yml"},
		files: map[string]string{"inventory/hosts": one,
			"project/site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n  - debug: msg={{ item }}\n    loop: '{{ range(10000) | list }}'\n"},
	},
}
