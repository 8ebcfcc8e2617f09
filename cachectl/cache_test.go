package cachectl_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"syscall"
	"testing"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/vfs"
)

// TestLaggingReaderStory is the project's reason in one test: 24 MiB freshly written whose reader has not come yet, in
// 32 MiB of memory, and a lagging reader that takes 64 MiB of old segments.
func TestLaggingReaderStory(t *testing.T) {
	const hotBytes, oldBytes, step = 24 << 20, 64 << 20, 2 << 20
	for _, c := range []struct {
		mode cachectl.ReadMode
		keep bool
	}{
		{cachectl.ModeAuto, true}, {cachectl.ModeDontCache, true}, {cachectl.ModeDropBehind, true}, {cachectl.ModeBuffered, false},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			sim := cachetest.New(cachetest.Options{CapacityBytes: 32 << 20})
			tier := sim.FS(vfs.NewMem(1))
			cache := cachectl.New(sim, cachectl.Options{ReadMode: c.mode, VerifyEvery: 8})
			if _, err := cache.Probe(tier); err != nil {
				t.Fatal(err)
			}
			old := makeFile(t, tier, "old", oldBytes)
			if e, err := cache.Evict(old, 0, oldBytes); err != nil || e.LeftPages != 0 {
				t.Fatalf("evict: %+v, %v", e, err)
			}
			hot := makeFile(t, tier, "hot", hotBytes)
			direct, err := tier.Open("old", vfs.Direct)
			if err != nil {
				t.Fatal(err)
			}
			src := cachectl.Source{Buffered: old, Direct: func() (vfs.File, error) { return direct, nil }, Size: oldBytes}
			pool, err := cachectl.NewPool(step, step)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			buf, _ := pool.TryGet()
			defer buf.Release()
			for pos := int64(0); pos < oldBytes; pos += step {
				if _, err := cache.ReadBypass(src, buf, pos, step); err != nil {
					t.Fatal(err)
				}
			}
			r, err := cache.Residency(hot, 0, hotBytes)
			if err != nil {
				t.Fatal(err)
			}
			left, err := cache.Residency(old, 0, oldBytes)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("hot: %d of %d pages resident; the lagging reader left %d", r.Resident, r.Pages, left.Resident)
			if kept := r.Resident == r.Pages && left.Resident == 0; kept != c.keep {
				t.Errorf("hot %+v, old %+v", r, left)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for _, s := range []string{"auto", "direct", "dontcache", "dropbehind", "buffered"} {
		if m, err := cachectl.ParseReadMode(s); err != nil || string(m) != s {
			t.Errorf("ParseReadMode(%q) = %q, %v", s, m, err)
		}
	}
	if m, err := cachectl.ParseReadMode(""); m != cachectl.ModeAuto || err != nil {
		t.Errorf("empty mode: %q, %v", m, err)
	}
	if err := (cachectl.Options{}).Validate(); err != nil {
		t.Errorf("zero options: %v", err)
	}
	err := cachectl.Options{ReadMode: "mmap", DemoteAfter: -1, MaxLeftRatio: 1}.Validate()
	if !errors.Is(err, cachectl.ErrOptions) {
		t.Fatalf("bad options: %v", err)
	}
	for _, part := range []string{`"mmap"`, "DemoteAfter", "MaxLeftRatio"} {
		if !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestRangesAreChecked(t *testing.T) {
	sim := cachetest.New(cachetest.Options{})
	f := makeFile(t, sim.FS(vfs.NewMem(1)), "a", 5000)
	c := cachectl.New(sim, cachectl.Options{})
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {math.MaxInt64, 1}, {1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}} {
		_, e1 := c.Residency(f, r[0], r[1])
		_, e2 := c.Evict(f, r[0], r[1])
		_, e3 := c.Warm(f, r[0], r[1])
		for _, err := range []error{e1, e2, e3, c.WriteBack(f, r[0], r[1])} {
			if !errors.Is(err, cachectl.ErrRange) {
				t.Errorf("[%d, +%d): %v, want ErrRange", r[0], r[1], err)
			}
		}
	}
	pool, err := cachectl.NewPool(1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {5001, 1}, {math.MaxInt64, math.MaxInt64}} {
		if _, err := c.ReadBypass(cachectl.Source{Buffered: f, Size: 5000}, buf, r[0], r[1]); !errors.Is(err, cachectl.ErrRange) {
			t.Errorf("bypass [%d, +%d): %v, want ErrRange", r[0], r[1], err)
		}
	}
	st, err := c.ReadBypass(cachectl.Source{Buffered: f, Size: 5000}, buf, 1, math.MaxInt64)
	if err != nil || st.N != 4999 {
		t.Errorf("a huge length is cut at the file's size: %+v, %v", st, err)
	}
}

// TestMemoryFiles: a file system without a page cache is read as it is.
func TestMemoryFiles(t *testing.T) {
	mem := vfs.NewMem(1)
	f := makeFile(t, mem, "a", 100000)
	var log bytes.Buffer
	c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), VerifyEvery: 1})
	l, err := c.Probe(mem)
	if err != nil || l.Best() != cachectl.MethodBuffered || len(l.Rungs) != 1 {
		t.Errorf("probe: %+v, %v", l, err)
	}
	log.Reset()
	pool, err := cachectl.NewPool(1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	src := cachectl.Source{Buffered: f, Size: 100000, Direct: func() (vfs.File, error) { return mem.Open("a", vfs.Direct) }}
	st, err := c.ReadBypass(src, buf, 10, 99990)
	if err != nil || st.N != 99990 || st.Method != cachectl.MethodBuffered || checkPattern(buf.Bytes()[:st.N], 10) != nil {
		t.Errorf("read: %+v, %v", st, err)
	}
	if _, err := c.Residency(f, 0, 1); !errors.Is(err, cachectl.ErrNoKernelFile) {
		t.Errorf("residency: %v", err)
	}
	if err := c.WriteBack(f, 0, 100); err != nil {
		t.Errorf("write-back: %v", err)
	}
	if _, err := c.Evict(f, 0, 100); !errors.Is(err, cachectl.ErrNoKernelFile) {
		t.Errorf("evict: %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("reads of memory files logged: %s", log.String())
	}
}

// TestProbe_BadDisk: a disk that cannot take the scratch file costs the probe, nothing else; a leftover is replaced.
func TestProbe_BadDisk(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpOpen, vfs.OpRead} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			mem := vfs.NewMem(1)
			fail := true
			faulty := vfs.WithFaults(mem, vfs.InjectorFunc(func(op vfs.Op) error {
				if fail && op.Kind == kind {
					return syscall.ENOSPC
				}
				return nil
			}))
			sim := cachetest.New(cachetest.Options{})
			tier := sim.FS(faulty)
			c := cachectl.New(sim, cachectl.Options{})
			l, err := c.Probe(tier)
			if kind != vfs.OpRead && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the fault did not surface: %v", err)
			}
			if l.Probed && err != nil || len(l.Rungs) != 4 {
				t.Errorf("ladder %+v with error %v", l, err)
			}
			if _, err := mem.Stat("lagoon-probe.tmp"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("scratch file: %v", err)
			}
			fail = false
			makeFile(t, mem, "lagoon-probe.tmp", 10) // as a crash leaves it
			if l, err := c.Probe(tier); err != nil || !l.Probed || l.Best() != cachectl.MethodDirect {
				t.Errorf("after repair: %+v, %v", l, err)
			}
		})
	}
}

// TestDirectOpenFails: without a descriptor left for O_DIRECT the next method serves; only the file system's own refusal
// takes the method off the ladder; a missing file is an error.
func TestDirectOpenFails(t *testing.T) {
	for _, c := range []struct {
		err    error
		served bool
		usable bool // afterwards
	}{{vfs.ErrDirectUnsupported, true, false}, {syscall.EINVAL, true, true}, {syscall.EMFILE, true, true}, {fs.ErrNotExist, false, true}} {
		sim := cachetest.New(cachetest.Options{})
		f := makeFile(t, sim.FS(vfs.NewMem(1)), "a", 1<<20)
		cache := cachectl.New(sim, cachectl.Options{})
		pool, err := cachectl.NewPool(1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		buf, _ := pool.TryGet()
		src := cachectl.Source{Buffered: f, Size: 1 << 20, Direct: func() (vfs.File, error) { return nil, c.err }}
		st, err := cache.ReadBypass(src, buf, 0, 1<<20)
		if c.served && (err != nil || st.Method != cachectl.MethodDontCache) || !c.served && !errors.Is(err, c.err) {
			t.Errorf("%v: %+v, %v", c.err, st, err)
		}
		if l := cache.Ladders(); l[0].Rungs[0].Usable != c.usable {
			t.Errorf("%v: ladder %+v", c.err, l)
		}
		buf.Release()
		pool.Close()
	}
}

// TestOddFiles: files that refuse direct reads do not cost the file system the method while others are read by it.
func TestOddFiles(t *testing.T) {
	sim := cachetest.New(cachetest.Options{})
	tier := sim.FS(vfs.NewMem(1))
	f := makeFile(t, tier, "a", 1<<20)
	cache := cachectl.New(sim, cachectl.Options{DemoteAfter: 3, VerifyEvery: -1})
	pool, err := cachectl.NewPool(1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	read := func(refused error) cachectl.Method {
		t.Helper()
		direct := func() (vfs.File, error) {
			if refused != nil {
				return nil, refused
			}
			return tier.Open("a", vfs.Direct)
		}
		st, err := cache.ReadBypass(cachectl.Source{Buffered: f, Size: 1 << 20, Direct: direct}, buf, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return st.Method
	}
	for i := range 5 {
		if m := read(nil); m != cachectl.MethodDirect {
			t.Fatalf("after %d odd files the others are read by %s", i, m)
		}
		read(syscall.EINVAL)
	}
	for range 3 {
		read(syscall.EINVAL)
	}
	if m := read(nil); m == cachectl.MethodDirect {
		t.Error("a row of refusals did not speak for the file system")
	}
}
