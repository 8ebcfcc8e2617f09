package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lagoon/cachectl"
	"lagoon/conf"
	"lagoon/internal/vfs"
)

// finding is one line of the doctor's report.
type finding struct {
	Condition string `json:"condition"`
	Required  string `json:"required"`
	Current   string `json:"current"`
	Severity  string `json:"severity"` // error: Lagoon does not work, or loses its point; warn: it works worse than it could
	Passed    bool   `json:"passed"`
	Remedy    string `json:"remedy,omitempty"` // when not passed
}

func (a *app) doctorCommand() *cobra.Command {
	var (
		file string
		set  []string
	)
	c := &cobra.Command{
		Use: "doctor", Short: "Is this machine fit for Lagoon? Exit code 0 yes, 3 no", Args: args(),
		Long: `Is this machine fit for Lagoon? Exit code 0 yes, 1 it could not be told, 3 no.

With -c FILE the tiers and limits of that configuration are checked; without, the defaults and the working directory.
Every tier is tried with a scratch file of 4 MiB, which is removed again. Run it as the user that runs the daemon.`,
		RunE: func(*cobra.Command, []string) error {
			opt := conf.LoadOptions{Path: file, Env: a.environ, Set: set}
			cfg, err := a.load(opt)
			if err != nil {
				return err
			}
			if file == "" {
				here, err := os.Getwd()
				if err != nil {
					return err
				}
				cfg.Storage.Tiers = []conf.Tier{{Name: "here", Path: here, Class: "auto", MaxUsed: 0.95}}
			}
			m, err := thisMachine(cfg)
			if err != nil {
				return err
			}
			return a.report(m.findings(cfg))
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	c.Flags().StringArrayVar(&set, "set", nil, "override one key; may be repeated")
	return c
}

func (a *app) report(list []finding) error {
	body, err := json.Marshal(map[string]any{"findings": list})
	if err != nil {
		return err
	}
	err = a.show(body, "findings", func(bool) error {
		t := a.table("CONDITION", "REQUIRED", "CURRENT", "SEVERITY", "PASSED")
		for _, f := range list {
			passed, color := "yes", ""
			if !f.Passed {
				passed, color = "NO", yellow
				if f.Severity == "error" {
					color = red
				}
			}
			t.add(color, f.Condition, f.Required, f.Current, f.Severity, passed)
		}
		if err := t.print(); err != nil {
			return err
		}
		for _, f := range list {
			if !f.Passed {
				fmt.Fprintf(a.stdout, "%s: %s\n", f.Condition, clean(f.Remedy))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	failed := 0
	for _, f := range list {
		if !f.Passed && f.Severity == "error" {
			failed++
		}
	}
	if failed > 0 {
		return checkError{fmt.Errorf("%s of %d failed", count(failed, "condition"), len(list))}
	}
	return nil
}

// machine is what doctor looks at. Sizes are bytes, math.MaxInt64 is no limit.
type machine struct {
	release     string
	cachestat   error // nil: works
	openFiles   int64 // hard limit: the runtime raises the soft one
	memory      cachectl.Memory
	lockable    int64
	swap        int64
	swappiness  int64
	maxMaps     int64
	hugePages   string
	proactive   bool // the kernel reclaims memory without need (DAMON)
	clockSynced bool
	now         time.Time
	disks       []disk
}

// disk is one tier's file system.
type disk struct {
	tier   conf.Tier
	err    error // not usable
	class  string
	total  int64
	free   int64
	shared string // the tier before it on the same file system
	method cachectl.Method
	why    string // the first method that is left out
}

// hostFiles reads the files in which the kernel tells about itself, below root ("" on a real machine).
type hostFiles struct{ root string }

func (h hostFiles) text(name string) string {
	body, err := os.ReadFile(filepath.Join(h.root, name))
	if err != nil {
		return "" // not there on this kernel: the value counts as not known
	}
	return strings.TrimSpace(string(body))
}

func (h hostFiles) number(name string, absent int64) int64 {
	text := h.text(name)
	if text == "max" {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return absent
	}
	return n
}

// meminfo is one line of /proc/meminfo, in bytes.
func (h hostFiles) meminfo(key string) int64 {
	for line := range strings.Lines(h.text("/proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// mayLock is how much memory the process may lock: all of it with CAP_IPC_LOCK, else so much as the soft limit says.
func (h hostFiles) mayLock(limit int64) int64 {
	const capIPCLock = 14 // capabilities(7)
	for line := range strings.Lines(h.text("/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if set, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64); err == nil && set>>capIPCLock&1 == 1 {
				return math.MaxInt64
			}
		}
	}
	return limit
}

func (h hostFiles) fill(m *machine) {
	m.swap = h.meminfo("SwapTotal")
	m.swappiness = h.number("/proc/sys/vm/swappiness", 60)
	m.maxMaps = h.number("/proc/sys/vm/max_map_count", 0)
	m.hugePages = "never"
	if _, rest, ok := strings.Cut(h.text("/sys/kernel/mm/transparent_hugepage/enabled"), "["); ok {
		m.hugePages, _, _ = strings.Cut(rest, "]")
	}
	m.proactive = h.text("/sys/module/damon_reclaim/parameters/enabled") == "Y" || h.text("/sys/module/damon_lru_sort/parameters/enabled") == "Y"
	if !m.proactive {
		states, _ := filepath.Glob(filepath.Join(h.root, "/sys/kernel/mm/damon/admin/kdamonds/*/state")) // the pattern is sound
		for _, f := range states {
			if rel, err := filepath.Rel("/"+h.root, "/"+f); err == nil {
				m.proactive = m.proactive || h.text("/"+rel) == "on"
			}
		}
	}
}

func thisMachine(cfg *conf.Config) (*machine, error) {
	m := &machine{release: kernelRelease(), now: time.Now()}
	hostFiles{}.fill(m)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	m.openFiles = int64(min(limit.Max, math.MaxInt64))
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return nil, fmt.Errorf("limit of locked memory: %w", err)
	}
	m.lockable = hostFiles{}.mayLock(int64(min(limit.Cur, math.MaxInt64)))
	var err error
	if m.memory, err = cachectl.ReadMemory(); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	var tx unix.Timex
	if state, err := unix.Adjtimex(&tx); err == nil {
		m.clockSynced = state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
	}
	devices := map[uint64]string{}
	for _, t := range cfg.Directories() {
		d := examine(t)
		device := deviceOf(t.Path)
		if d.err == nil {
			d.shared = devices[device]
			devices[device] = cmp.Or(devices[device], t.Name)
		}
		m.disks = append(m.disks, d)
	}
	m.cachestat = tryCachestat(cfg)
	return m, nil
}

// examine tries a tier's directory as the daemon would.
func examine(t conf.Tier) disk {
	d := disk{tier: t}
	root, err := vfs.OS(t.Path)
	if err != nil {
		d.err = err
		return d
	}
	usage, err := root.Usage()
	if err != nil {
		d.err = err
		return d
	}
	d.total, d.free = usage.TotalBytes, usage.FreeBytes
	if d.class = t.Class; d.class == "auto" {
		d.class = kernelClass(deviceOf(t.Path))
		if measured, err := cachectl.ProbeDevice(root); err == nil {
			d.class = string(measured.Class)
		}
	}
	ladder, err := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{}).Probe(root)
	if err != nil {
		d.err = err
		return d
	}
	d.method = ladder.Best()
	for _, r := range ladder.Rungs {
		if !r.Usable {
			d.why = fmt.Sprintf("%s: %s", r.Method, r.Why)
			break
		}
	}
	return d
}

// tryCachestat asks about a file of our own: the kernel tells about others only to those who may write them.
func tryCachestat(cfg *conf.Config) (err error) {
	dir := os.TempDir()
	for _, t := range cfg.Directories() {
		if info, err := os.Stat(t.Path); err == nil && info.IsDir() {
			dir = t.Path
			break
		}
	}
	f, err := os.CreateTemp(dir, "lagoon-doctor-*.tmp")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	return unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &unix.Cachestat_t{}, 0)
}

const (
	// descriptorsForFiles are for segments (data and indexes) beside one per connection.
	descriptorsForFiles = 16384
	// heapBytes is what the daemon takes beside buffers that the configuration bounds (docs/benchmarks.md: 64 partitions, 100 MiB/s).
	heapBytes = 256 << 20
	// leastMaps is the kernel's own standard.
	leastMaps = 65530
)

// findings judges the machine against a configuration.
func (m *machine) findings(cfg *conf.Config) []finding {
	var out []finding
	add := func(condition, severity string, passed bool, required, current, remedy string) {
		f := finding{Condition: condition, Required: required, Current: current, Severity: severity, Passed: passed}
		if !passed {
			f.Remedy = remedy
		}
		out = append(out, f)
	}
	major, minor := versionOf(m.release)
	newer := func(a, b int) bool { return major > a || major == a && minor >= b }
	add("kernel", "error", newer(4, 14), "4.14 or later", m.release, "use a newer kernel: Lagoon reads and syncs by calls that this one lacks")
	current := "works"
	if m.cachestat != nil {
		current = m.cachestat.Error()
	}
	add("residency by cachestat", "warn", m.cachestat == nil, "kernel 6.5, not forbidden by seccomp", current,
		"residency is asked by mincore, at 20 ms per GiB: use kernel 6.5 or later, and allow cachestat in the seccomp profile (systemd: SystemCallFilter=@system-service cachestat mincore)")
	need := cfg.Server.Limits.Connections + descriptorsForFiles
	add("open files", "warn", m.openFiles >= need, fmt.Sprint(need), amount(m.openFiles, fmt.Sprint(m.openFiles)),
		"raise the hard limit (systemd: LimitNOFILE=1048576), or lower server.limits.connections")
	m.judgeMemory(cfg, add)
	add("max_map_count", "warn", m.maxMaps >= leastMaps, fmt.Sprint(leastMaps), fmt.Sprint(m.maxMaps), "sysctl vm.max_map_count=65530, the kernel's standard")
	add("transparent huge pages", "warn", m.hugePages != "always", "madvise or never", m.hugePages,
		"echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: \"always\" lets the daemon's own memory grow, which the page cache then lacks")
	add("no reclaim ahead of need", "warn", !m.proactive, "DAMON reclaim off", map[bool]string{true: "on", false: "off"}[m.proactive],
		"the kernel takes pages that nobody touched lately, also of hot windows, while memory is free: switch it off in /sys/module/damon_reclaim or /sys/kernel/mm/damon")
	plausible := m.now.After(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	add("clock", "error", plausible, "after 2024", m.now.UTC().Format("2006-01-02 15:04"), "set the clock: retention by time would delete the wrong records")
	add("clock is synchronised", "warn", m.clockSynced, "yes", map[bool]string{true: "yes", false: "no"}[m.clockSynced],
		"run chrony or systemd-timesyncd: lag in seconds and retention go by the clock")
	for _, d := range m.disks {
		d.judge(cfg, add)
	}
	return out
}

// leastHot is a hot window worth its name: ten seconds at 25 MiB/s.
const leastHot = 256 << 20

type addFinding = func(condition, severity string, passed bool, required, current, remedy string)

func (m *machine) judgeMemory(cfg *conf.Config, add addFinding) {
	have, where := m.memory.Limit, m.memory.Source
	own := int64(cfg.Readers.ChunkMemory) + int64(cfg.Server.Limits.InflightBytes) + heapBytes
	add("memory", "error", have >= own, size(own)+" for buffers and heap", size(have)+" ("+where+")",
		"give it more memory, or lower readers.chunk_memory and server.limits.inflight_bytes: what is short is taken from the page cache, then the process is killed")
	add("memory for hot windows", "warn", cfg.Cache.HotWindowMemory == 0 || have-own >= leastHot, size(own+leastHot)+" for one partition",
		size(have)+" ("+where+")", "the page cache is charged to the same limit: raise it, or lower readers.chunk_memory and server.limits.inflight_bytes")
	pinned := int64(float64(cfg.Cache.HotWindowMemory) * float64(max(0, have-own)))
	add("memory that may be locked", "warn", m.lockable >= pinned, size(pinned)+" for hot windows", amount(m.lockable, size(m.lockable)),
		"what cannot be locked the kernel may take from a hot window: give the process CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity)")
	swap := "no swap"
	if m.swap > 0 {
		swap = fmt.Sprintf("%s of swap, swappiness %d", size(m.swap), m.swappiness)
	}
	add("swap", "warn", m.swap == 0 || m.swappiness <= 10, "none, or swappiness 10 at most", swap, "sysctl vm.swappiness=1, or swapoff -a: a heap that is swapped out delays everyone")
}

func (d disk) judge(cfg *conf.Config, add addFinding) {
	name := "tier " + d.tier.Name
	if d.err != nil {
		remedy := "mount its file system, or make the directory if the tier is new"
		if errors.Is(d.err, os.ErrPermission) {
			remedy = "give it to the user that runs the daemon (mode 0700)"
		}
		add(name, "error", false, "a directory that can be written", d.err.Error(), remedy)
		return
	}
	add(name, "error", true, "a directory that can be written", d.tier.Path+" ("+d.class+")", "")
	reserve := int64((1 - float64(d.tier.MaxUsed)) * float64(d.total))
	least := max(reserve, 2*int64(cfg.Storage.SegmentBytes))
	add(name+": space", "error", d.free > least, size(least)+" free", size(d.free)+" free of "+size(d.total),
		"free some space, add a tier, or shorten retention: from max_used on nothing moves here, and below "+size(min(64<<20, d.total/100))+" appends are refused")
	around := d.method == cachectl.MethodDirect || d.method == cachectl.MethodDontCache
	add(name+": reads around the page cache", "warn", around, "direct or dontcache", string(d.method),
		"replays of this tier leave pages behind or are slow; use ext4 or xfs ("+cmp.Or(d.why, "the file system supports neither")+")")
	if d.shared != "" {
		add(name+": a device of its own", "warn", false, "yes", "shares the file system of tier "+d.shared,
			"moving segments between them frees nothing, and their reads compete: give it another file system")
	}
}

// amount prints a limit, of which the largest number is none.
func amount(n int64, text string) string {
	if n == math.MaxInt64 || n < 0 {
		return "unlimited"
	}
	return text
}

// versionOf reads major and minor of a kernel release.
func versionOf(release string) (major, minor int) {
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor) // what cannot be read is 0 and fails the check
	return major, minor
}
