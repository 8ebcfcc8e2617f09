package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"lagoon/cachectl"
	"lagoon/internal/admin"
)

// mostRecent is how much of the log is kept in memory for debug bundles: hours of a quiet broker, seconds of a noisy one.
const mostRecent = 256 << 10

// recentLog keeps the newest lines that were written to it. Safe for concurrent use.
type recentLog struct {
	mu    sync.Mutex
	lines []byte
}

// Write implements io.Writer.
func (r *recentLog) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lines = append(r.lines, p...); len(r.lines) > 2*mostRecent {
		r.lines = append(r.lines[:0], newest(r.lines)...)
	}
	return len(p), nil
}

// newest cuts off what is too old, at the end of a line.
func newest(lines []byte) []byte {
	if len(lines) <= mostRecent {
		return lines
	}
	lines = lines[len(lines)-mostRecent:]
	for i, c := range lines {
		if c == '\n' {
			return lines[i+1:]
		}
	}
	return lines
}

func (r *recentLog) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(newest(r.lines))
}

// kernelFiles are what the kernel says about the machine and this process. None of them waits for a disk.
var kernelFiles = []string{
	"/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/vmstat", "/proc/diskstats", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory",
	"/proc/sys/vm/swappiness", "/proc/sys/vm/dirty_ratio", "/proc/sys/vm/dirty_background_ratio", "/proc/sys/vm/dirty_bytes", "/proc/sys/vm/dirty_background_bytes",
	"/proc/self/status", "/proc/self/limits", "/proc/self/io", "/proc/self/cgroup",
}

// groupFiles are of the control group that limits the memory, of version 2 and 1.
var groupFiles = []string{
	"memory.max", "memory.high", "memory.low", "memory.current", "memory.events", "memory.stat", "memory.pressure", "io.pressure", "io.max",
	"memory.limit_in_bytes", "memory.usage_in_bytes", "memory.failcnt",
}

// DebugParts are the parts of a debug bundle that only the daemon knows: the end of its log, and what it relies on in the kernel.
func (b *backend) DebugParts() []admin.DebugPart {
	parts := []admin.DebugPart{{Name: "log.txt", Write: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, b.recent.text())
		return err
	}}, jsonPart("kernel/facts.json", func() (any, error) { return b.kernelFacts() })}
	file := func(name, source string) {
		parts = append(parts, admin.DebugPart{Name: "kernel/" + name, Write: func(_ context.Context, w io.Writer) error { return copyText(w, source) }})
	}
	for _, f := range kernelFiles {
		file(strings.ReplaceAll(strings.TrimPrefix(f, "/proc/"), "/", "-"), f)
	}
	if m, err := cachectl.ReadMemory(); err == nil && filepath.IsAbs(m.Source) {
		for _, f := range groupFiles {
			if _, err := os.Stat(filepath.Join(m.Source, f)); err == nil { // a pseudo file: it waits for nothing
				file("cgroup-"+f, filepath.Join(m.Source, f))
			}
		}
	}
	for _, dir := range sortedKeys(b.tiers) {
		parts = append(parts, jsonPart("kernel/dir-"+dir+".json", func() (any, error) { return b.dirFacts(dir), nil }))
	}
	return parts
}

func jsonPart(name string, ask func() (any, error)) admin.DebugPart {
	return admin.DebugPart{Name: name, Write: func(_ context.Context, w io.Writer) error {
		v, err := ask()
		if err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(v)
	}}
}

// copyText copies a file of the kernel's; one that this kernel does not have is empty.
func copyText(w io.Writer, name string) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// kernelFacts is what the daemon relies on.
type kernelFacts struct {
	Release          string                       `json:"release"`
	Residency        string                       `json:"residency"`    // cachestat, mincore, none
	ReadMethods      map[string]map[string]string `json:"read_methods"` // around the page cache: file system → method → usable, or why not
	MemoryLimit      int64                        `json:"memory_limit_bytes"`
	MemoryFree       int64                        `json:"memory_free_bytes"`
	MemoryAvailable  int64                        `json:"memory_available_bytes"`
	MemoryLimitFrom  string                       `json:"memory_limit_from"` // machine, or a control group
	MayLockBytes     int64                        `json:"may_lock_bytes"`    // -1: all of the memory
	OpenFilesLimit   int64                        `json:"open_files_limit"`  // soft
	OpenFiles        int                          `json:"open_files"`        // -1: not known
	MaxMaps          int64                        `json:"max_map_count"`
	HugePages        string                       `json:"transparent_huge_pages"`
	ProactiveReclaim bool                         `json:"proactive_reclaim"` // the kernel takes memory without need (DAMON)
	SwapBytes        int64                        `json:"swap_bytes"`
}

func (b *backend) kernelFacts() (kernelFacts, error) {
	var m machine
	hostFiles{}.fill(&m)
	f := kernelFacts{Release: kernelRelease(), Residency: b.sampler.lastMethod(), ReadMethods: map[string]map[string]string{}, MaxMaps: m.maxMaps, HugePages: m.hugePages,
		ProactiveReclaim: m.proactive, SwapBytes: m.swap, OpenFiles: -1}
	for _, l := range b.cache.Ladders() {
		methods := map[string]string{}
		for _, r := range l.Rungs {
			if methods[string(r.Method)] = "usable"; !r.Usable {
				methods[string(r.Method)] = r.Why
			}
		}
		f.ReadMethods[l.FileSystem] = methods
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.OpenFiles = len(open)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return f, fmt.Errorf("limit of open files: %w", err)
	}
	f.OpenFilesLimit = int64(min(limit.Cur, math.MaxInt64))
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return f, fmt.Errorf("limit of locked memory: %w", err)
	}
	if f.MayLockBytes = (hostFiles{}).mayLock(int64(min(limit.Cur, math.MaxInt64))); f.MayLockBytes == math.MaxInt64 {
		f.MayLockBytes = -1
	}
	memory, err := cachectl.ReadMemory()
	if err != nil {
		return f, fmt.Errorf("memory: %w", err)
	}
	f.MemoryLimit, f.MemoryFree, f.MemoryAvailable, f.MemoryLimitFrom = memory.Limit, memory.Free, memory.Available, memory.Source
	return f, nil
}

// dirFacts is where a log directory lies, as far as that is known without asking its disk.
type dirFacts struct {
	Dir    string            `json:"dir"`
	Tier   string            `json:"tier"`
	Path   string            `json:"path"`
	Class  string            `json:"class"`
	Device string            `json:"device"` // major:minor
	Mount  string            `json:"mount"`  // its line of /proc/self/mountinfo
	Queue  map[string]string `json:"queue"`  // of the block device, as the kernel has it
}

// queueFiles are the settings of a block device that matter here.
var queueFiles = []string{"rotational", "scheduler", "nr_requests", "read_ahead_kb", "write_cache", "logical_block_size", "physical_block_size", "wbt_lat_usec"}

func (b *backend) dirFacts(dir string) dirFacts {
	t := b.tiers[dir]
	f := dirFacts{Dir: dir, Tier: t.Name, Path: t.fs.Root(), Class: t.class, Queue: map[string]string{},
		Device: fmt.Sprintf("%d:%d", unix.Major(t.device), unix.Minor(t.device))}
	f.Mount = mountOf(hostFiles{}.text("/proc/self/mountinfo"), f.Device, f.Path)
	dev, err := filepath.EvalSymlinks("/sys/dev/block/" + f.Device)
	if err != nil {
		return f // an overlay, a network, memory
	}
	for _, name := range queueFiles {
		f.Queue[name] = cmp.Or(hostFiles{}.text(filepath.Join(dev, "queue", name)), hostFiles{}.text(filepath.Join(filepath.Dir(dev), "queue", name))) // a partition's is that of its disk
	}
	return f
}

// mountOf finds the line of a device whose mount point is nearest above path.
func mountOf(mountinfo, device, path string) (best string) {
	longest := -1
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 || f[2] != device {
			continue
		}
		point, err := strconv.Unquote(`"` + f[4] + `"`) // spaces and the like are octal
		if err != nil {
			point = f[4]
		}
		if (point == "/" || path == point || strings.HasPrefix(path, point+"/")) && len(point) > longest {
			best, longest = strings.TrimSpace(line), len(point)
		}
	}
	return best
}
