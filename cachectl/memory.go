package cachectl

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is what this process really has, in bytes: the least of the machine's memory and of the limits of its memory group
// and all groups above it.
type Memory struct {
	Limit int64
	// Free is what nobody uses, not even as page cache.
	Free int64
	// Available is Free and the page cache that can be taken back. Locked pages cannot.
	Available int64
	Source    string // what sets Limit: "machine" or the group's directory
}

// ReadMemory asks the kernel: /proc/meminfo and control groups of version 1 or 2. It costs some 0.1 ms. Errors: those of
// /proc/meminfo; a group that cannot be read counts as without a limit.
func ReadMemory() (Memory, error) { return readMemory("/") }

func readMemory(root string) (Memory, error) {
	m, err := machineMemory(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return Memory{}, err
	}
	for _, g := range memoryGroups(root) {
		g.narrow(&m)
	}
	return m, nil
}

func machineMemory(name string) (Memory, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return Memory{}, err
	}
	kib := func(key string) int64 { return fieldOf(string(text), key) << 10 }
	m := Memory{Limit: kib("MemTotal:"), Free: kib("MemFree:"), Available: kib("MemAvailable:"), Source: "machine"}
	if m.Limit <= 0 || m.Free < 0 || m.Available < 0 {
		return Memory{}, fmt.Errorf("%s: MemTotal, MemFree or MemAvailable missing: %w", name, errors.ErrUnsupported)
	}
	return m, nil
}

// fieldOf finds "key number" at the beginning of a line; -1 when it is not there.
func fieldOf(text, key string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == key {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return min(n, math.MaxInt64>>20)
			}
		}
	}
	return -1
}

// memoryGroup is one level of a control group hierarchy.
type memoryGroup struct {
	dir string
	v2  bool
}

// memoryGroups are the process's group and all above it.
func memoryGroups(root string) (out []memoryGroup) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		base, v2 := "sys/fs/cgroup", part[1] == ""
		if !v2 {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			base = "sys/fs/cgroup/memory"
		}
		// A container may see its own group as the root of the mount, and another path here.
		for at := path.Clean("/" + part[2]); ; at = path.Dir(at) {
			out = append(out, memoryGroup{filepath.Join(root, base, at), v2})
			if at == "/" {
				break
			}
		}
	}
	return out
}

// narrow lowers m to what the group leaves.
func (g memoryGroup) narrow(m *Memory) {
	limitFiles, usageFile, prefix := []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_"
	if g.v2 {
		limitFiles, usageFile, prefix = []string{"memory.max", "memory.high"}, "memory.current", ""
	}
	limit := int64(math.MaxInt64)
	for _, name := range limitFiles {
		if n, ok := numberIn(filepath.Join(g.dir, name)); ok {
			limit = min(limit, n)
		}
	}
	usage, ok := numberIn(filepath.Join(g.dir, usageFile))
	if !ok || limit >= math.MaxInt64>>12 { // version 1 writes no limit as the largest multiple of a page
		return
	}
	if limit < m.Limit {
		m.Limit, m.Source = limit, g.dir
	}
	free := max(0, limit-usage)
	m.Free = min(m.Free, free)
	if text, err := os.ReadFile(filepath.Join(g.dir, "memory.stat")); err == nil {
		for _, key := range []string{"inactive_file", "active_file"} {
			free += max(0, fieldOf(string(text), prefix+key))
		}
	}
	m.Available = min(m.Available, free)
}

// numberIn reads a file that holds one number; "max" is none.
func numberIn(name string) (int64, bool) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n >= 0
}
