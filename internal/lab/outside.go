package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Pages is what the page cache holds of a range, in pages of the kernel.
type Pages struct {
	Resident, Dirty, Writeback, Evicted, RecentlyEvicted, Total int64
}

// Add sums up.
func (p *Pages) Add(q Pages) {
	p.Resident += q.Resident
	p.Dirty += q.Dirty
	p.Writeback += q.Writeback
	p.Evicted += q.Evicted
	p.RecentlyEvicted += q.RecentlyEvicted
	p.Total += q.Total
}

// Bytes is how much is resident.
func (p Pages) Bytes() int64 { return p.Resident * int64(os.Getpagesize()) }

// Ratio is the resident share, 1 of nothing.
func (p Pages) Ratio() float64 {
	if p.Total == 0 {
		return 1
	}
	return float64(p.Resident) / float64(p.Total)
}

// Cached asks cachestat(2) about the bytes [pos, pos+n) of a file; n < 0 is up to its end. It touches no page.
func Cached(name string, pos, n int64) (Pages, error) {
	f, err := os.Open(name)
	if err != nil {
		return Pages{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Pages{}, err
	}
	if rest := info.Size() - pos; n < 0 || n > rest {
		n = rest
	}
	if n <= 0 {
		return Pages{}, nil
	}
	var st unix.Cachestat_t
	for {
		err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{Off: uint64(pos), Len: uint64(n)}, &st, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return Pages{}, fmt.Errorf("cachestat %s: %w", name, err)
	}
	page := int64(os.Getpagesize())
	return Pages{
		Resident: int64(st.Cache), Dirty: int64(st.Dirty), Writeback: int64(st.Writeback),
		Evicted: int64(st.Evicted), RecentlyEvicted: int64(st.Recently_evicted),
		Total: (pos+n+page-1)/page - pos/page,
	}, nil
}

// Evict takes clean pages of whole files out of the page cache.
func Evict(names ...string) error {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("evict %s: %w", name, err)
		}
	}
	return nil
}

// ProcIO is a counter of /proc/PID/io, such as read_bytes: what the process made devices read.
func ProcIO(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && key == name {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/io has no %s", pid, name)
}

// ProactiveReclaim tells whether the kernel of this machine pages out memory by age although there is no pressure (DAMON, as
// some virtual machines have it to give memory back to their host). It judges regions of up to megabytes by a few samples
// and takes pages that are seconds old with them. A test can only know; it is not for a test to switch that off.
func ProactiveReclaim() (what string, on bool) {
	const kdamonds = "/sys/kernel/mm/damon/admin/kdamonds/*"
	states, _ := filepath.Glob(kdamonds + "/state")
	for _, state := range states {
		if b, err := os.ReadFile(state); err != nil || strings.TrimSpace(string(b)) != "on" {
			continue
		}
		actions, _ := filepath.Glob(filepath.Join(filepath.Dir(state), "contexts/*/schemes/*/action"))
		for _, action := range actions {
			if b, err := os.ReadFile(action); err == nil && strings.TrimSpace(string(b)) == "pageout" {
				return action, true
			}
		}
	}
	if b, err := os.ReadFile("/sys/module/damon_reclaim/parameters/enabled"); err == nil && strings.TrimSpace(string(b)) == "Y" {
		return "damon_reclaim", true
	}
	return "", false
}
