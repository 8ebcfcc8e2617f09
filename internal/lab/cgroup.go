package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Cgroup is a control group with a memory limit, of version 1 or 2, whichever the machine has.
type Cgroup struct {
	path string
	v2   bool
}

// hierarchy is where memory groups can be made.
type hierarchy struct {
	root string
	v2   bool
}

// v1Root finds the mount of a version-1 controller.
func v1Root(controller string) (string, bool) {
	root := filepath.Join("/sys/fs/cgroup", controller)
	_, err := os.Stat(filepath.Join(root, "cgroup.procs"))
	return root, err == nil
}

func findMemory() (hierarchy, error) {
	if root, ok := v1Root("memory"); ok {
		return hierarchy{root: root}, nil
	}
	const root = "/sys/fs/cgroup"
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return hierarchy{}, errors.New("a cgroup hierarchy at /sys/fs/cgroup")
	}
	have := " " + strings.TrimSpace(string(b)) + " "
	if !strings.Contains(have, " memory ") || !strings.Contains(have, " io ") {
		return hierarchy{}, errors.New("the memory and io controllers in cgroup v2")
	}
	return hierarchy{root: root, v2: true}, nil
}

// Cgroup makes a group whose memory, page cache included, is limited to memoryBytes; 0 is no limit.
func (l *Lab) Cgroup(memoryBytes int64) (*Cgroup, error) {
	h, err := findMemory()
	if err != nil {
		return nil, err
	}
	l.groups++
	g := &Cgroup{path: filepath.Join(h.root, fmt.Sprintf("lagoon-%s-%d", l.id, l.groups)), v2: h.v2}
	if h.v2 {
		// The root group may have both processes and controlled children. It stays enabled: others may use it by now.
		if err := write(filepath.Join(h.root, "cgroup.subtree_control"), "+memory +io"); err != nil {
			return nil, err
		}
	}
	if err := l.note(undo{Kind: "cgroup", Path: g.path}); err != nil {
		return nil, err
	}
	if err := os.Mkdir(g.path, 0o700); err != nil || memoryBytes == 0 {
		return g, err
	}
	file := "memory.limit_in_bytes"
	if h.v2 {
		file = "memory.max"
	}
	return g, write(filepath.Join(g.path, file), strconv.FormatInt(memoryBytes, 10))
}

// Procs is the file that a process id is written to.
func (g *Cgroup) Procs() string { return filepath.Join(g.path, "cgroup.procs") }

// Wrap makes a command start inside the group: it joins before it becomes the program, so that every page is charged there.
func (g *Cgroup) Wrap(c *exec.Cmd) {
	c.Args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, g.Procs(), c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}

// Usage is the memory charged to the group, page cache included.
func (g *Cgroup) Usage() int64 {
	name := "memory.usage_in_bytes"
	if g.v2 {
		name = "memory.current"
	}
	b, err := os.ReadFile(filepath.Join(g.path, name))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Stat is a counter of memory.stat, such as workingset_refault_file; -1 when the kernel does not have it.
func (g *Cgroup) Stat(name string) int64 {
	b, err := os.ReadFile(filepath.Join(g.path, "memory.stat"))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == name {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}
