package cachectl_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// The Linux suite: what the code believes about the kernel, on the file system below the temporary directory.

// lacking ends a test that this machine cannot run: skipped with the reason, failed when everything is required.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// disk is a directory on a file system whose pages can be dropped.
type disk struct {
	fs   vfs.FS
	file vfs.File // "a", synced and cold
	size int64
}

const diskBytes = 16<<20 + 1234

func newDisk(t testing.TB, size int64) disk {
	t.Helper()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		lacking(t, "%s is a memory file system, whose pages never leave: set TMPDIR to a directory on ext4 or xfs", dir)
	}
	fs, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := disk{fs: fs, size: size}
	w := makeFile(t, fs, "a", size)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d.file = d.open(t, vfs.ReadOnly)
	return d
}

func (d disk) open(t testing.TB, mode vfs.Mode) vfs.File {
	t.Helper()
	f, err := d.fs.Open("a", mode)
	if errors.Is(err, vfs.ErrDirectUnsupported) {
		lacking(t, "no O_DIRECT below %s", d.fs.Root())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (d disk) source(t testing.TB) cachectl.Source {
	direct := d.open(t, vfs.Direct)
	return cachectl.Source{
		Buffered: d.open(t, vfs.ReadOnly),
		Direct:   func() (vfs.File, error) { return direct, nil },
		Size:     d.size,
	}
}

// cold evicts the file completely.
func (d disk) cold(t testing.TB, c *cachectl.Cache) {
	t.Helper()
	for range 5 { // a page may be pinned for a moment
		e, err := c.Evict(d.file, 0, d.size)
		if err != nil {
			t.Fatal(err)
		}
		if e.LeftPages == 0 {
			return
		}
	}
	r, err := c.Residency(d.file, 0, d.size)
	t.Fatalf("the file cannot be made cold: %+v, %v", r, err)
}

// pages is the exact set of resident pages.
func (d disk) pages(t testing.TB) []bool {
	t.Helper()
	set := make([]bool, (d.size+cachectl.PageSize-1)/cachectl.PageSize)
	if err := cachectl.LinuxKernel().Mincore(d.file, 0, set); err != nil {
		t.Fatal(err)
	}
	return set
}

func countPages(set []bool) (n int64) {
	for _, yes := range set {
		if yes {
			n++
		}
	}
	return n
}

// dropped lists the pages of before that are gone from the cache and that the kernel's own reclaim did not take: reclaim,
// also the proactive one of some virtual machines (DAMON), leaves a shadow entry that cachestat counts; dropping does not.
func (d disk) dropped(t testing.TB, before, after []bool) (lost []int64) {
	t.Helper()
	for i := range before {
		if !before[i] || after[i] {
			continue
		}
		counts, err := cachectl.LinuxKernel().Cachestat(d.file, int64(i)*cachectl.PageSize, cachectl.PageSize)
		if err != nil {
			t.Fatal(err)
		}
		if counts.Evicted == 0 && counts.Resident == 0 {
			lost = append(lost, int64(i))
		}
	}
	return lost
}

// added counts the pages of after that were not there before.
func added(before, after []bool) (n int64) {
	for i := range after {
		if after[i] && !before[i] {
			n++
		}
	}
	return n
}

// attempts is how often a check may meet the kernel's own reclaim before it counts as failed.
const attempts = 4

func newCache(mode cachectl.ReadMode) *cachectl.Cache {
	return cachectl.New(cachectl.LinuxKernel(), cachectl.Options{ReadMode: mode, VerifyEvery: 1})
}

func requireCachestat(t testing.TB, d disk) {
	t.Helper()
	if _, err := cachectl.LinuxKernel().Cachestat(d.file, 0, cachectl.PageSize); errors.Is(err, cachectl.ErrNoCachestat) {
		lacking(t, "cachestat: %v", err)
	}
}

// heat makes some pages resident by readers of every kind and returns the set.
func (d disk) heat(t testing.TB, rnd *rand.Rand) []bool {
	t.Helper()
	f := d.open(t, vfs.ReadOnly)
	if err := cachectl.LinuxKernel().Advise(f, 0, 0, cachectl.AdviseRandom); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		pos := rnd.Int64N(d.size)
		if _, err := f.ReadAt(make([]byte, 1+rnd.Int64N(200<<10)), pos); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	return d.pages(t)
}

var bypassModes = []cachectl.ReadMode{cachectl.ModeDirect, cachectl.ModeDontCache, cachectl.ModeDropBehind}

// requireMode ends the test where the kernel lacks the method.
func requireMode(t testing.TB, d disk, mode cachectl.ReadMode) {
	t.Helper()
	l, err := newCache(mode).Probe(d.fs)
	if err != nil {
		t.Fatal(err)
	}
	if string(l.Best()) != string(mode) {
		lacking(t, "no %s below %s: %s", mode, d.fs.Root(), l.Rungs[0].Why)
	}
}

func TestLinux_ReadBypassLeavesCacheAsItWas(t *testing.T) {
	for _, mode := range bypassModes {
		t.Run(string(mode), func(t *testing.T) {
			d := newDisk(t, diskBytes)
			requireCachestat(t, d)
			requireMode(t, d, mode)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			s := scan{disk: d, mode: mode, cache: newCache(mode), src: d.source(t), rnd: rand.New(rand.NewPCG(seed, 0))}
			// Nothing resident at first.
			for _, chunk := range []int64{64 << 10, 1 << 20, 4 << 20} {
				s.runs(t, chunk, make([]bool, len(d.pages(t))))
			}
			for _, chunk := range []int64{4 << 20, 2 << 20, 1 << 20, 64 << 10, 777777, 300 << 10} {
				s.runs(t, chunk, nil)
			}
		})
	}
}

// scan reads the whole file around the cache.
type scan struct {
	disk
	mode  cachectl.ReadMode
	cache *cachectl.Cache
	src   cachectl.Source
	rnd   *rand.Rand
}

// runs scans until a scan leaves the cache as it was. A page that reclaim took in the middle of the scan came back with the read and
// left with it, one that reclaim has in its hands cannot be dropped: that is no fault, but looks like one. It does not happen every time.
func (s scan) runs(t *testing.T, chunk int64, before []bool) {
	t.Helper()
	for left := attempts; ; left-- {
		fault := s.run(t, chunk, before)
		if fault == "" {
			return
		}
		if left == 0 {
			t.Fatalf("%d byte reads %s", chunk, fault)
		}
	}
}

// run scans in chunks from a ragged position on, with before resident (nil: some pages), and tells what it changed in the cache.
// Wrong bytes and another method fail the test.
func (s scan) run(t *testing.T, chunk int64, before []bool) (fault string) {
	t.Helper()
	s.cold(t, s.cache)
	if before == nil {
		before = s.heat(t, s.rnd)
	}
	pool, err := cachectl.NewPool(4<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	for pos := s.rnd.Int64N(3) * 4711; pos < s.size; {
		st, err := s.cache.ReadBypass(s.src, buf, pos, chunk)
		if err == nil {
			err = checkPattern(buf.Bytes()[st.Off:][:st.N], pos)
		}
		if err != nil || string(st.Method) != string(s.mode) {
			t.Fatalf("read %d at %d: %+v, %v", chunk, pos, st, err)
		}
		if st.LeftPages != 0 {
			return fmt.Sprintf("left %d pages at %d", st.LeftPages, pos)
		}
		pos += st.N
	}
	after := s.pages(t)
	if left := added(before, after); left != 0 {
		return fmt.Sprintf("left %d pages of %d", left, int64(len(after))-countPages(before))
	}
	if lost := s.dropped(t, before, after); len(lost) > 0 {
		return fmt.Sprintf("dropped pages that were resident: %v", lost)
	}
	return ""
}

func TestLinux_ReadBypassBufferedStays(t *testing.T) {
	d := newDisk(t, diskBytes)
	c := newCache(cachectl.ModeBuffered)
	pool, err := cachectl.NewPool(2<<20, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	src := d.source(t)
	for left := attempts; ; left-- {
		d.cold(t, c)
		st, err := c.ReadBypass(src, buf, 0, 2<<20)
		if err != nil || st.Method != cachectl.MethodBuffered {
			t.Fatalf("%+v, %v", st, err)
		}
		if st.LeftPages >= 512 {
			return
		}
		if left == 0 {
			t.Fatalf("a buffered read must show what it leaves: %+v", st)
		}
	}
}

func TestLinux_Probe(t *testing.T) {
	d := newDisk(t, 4096)
	l, err := newCache("").Probe(d.fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", l)
	for _, r := range l.Rungs {
		if !r.Usable {
			lacking(t, "%s is not usable below %s: %s", r.Method, d.fs.Root(), r.Why)
		}
	}
	if !l.Probed || l.Best() != cachectl.MethodDirect || l.MeasuredAlign == 0 || l.MeasuredAlign > max(cachectl.PageSize, l.Align.Offset) {
		t.Errorf("ladder %+v", l)
	}
	entries, err := d.fs.List(".")
	if err != nil || len(entries) != 1 {
		t.Errorf("the probe left something: %v, %v", entries, err)
	}
}

func TestLinux_TmpfsIsBufferedOnly(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "lagoon-cachectl-")
	if err != nil {
		lacking(t, "no tmpfs: %v", err)
	}
	defer os.RemoveAll(dir)
	fs, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := makeFile(t, fs, "a", 1<<20)
	if _, err := cachectl.LinuxKernel().ReadDontCache(f, make([]byte, 4096), 0); !errors.Is(err, cachectl.ErrMethodUnsupported) ||
		!errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("RWF_DONTCACHE on tmpfs: %v, want EOPNOTSUPP", err)
	}
	l, err := newCache("").Probe(fs)
	if err != nil || l.Best() != cachectl.MethodBuffered {
		t.Errorf("probe: %+v, %v", l, err)
	}
}

// TestLinux_DontNeedWindows: large folios from read-ahead go in aligned windows of WindowBytes. That narrower ranges leave
// most of them is logged, not demanded: the code only avoids it.
func TestLinux_DontNeedWindows(t *testing.T) {
	d := newDisk(t, 16<<20)
	requireCachestat(t, d)
	k, c := cachectl.LinuxKernel(), newCache("")
	left := func(window int64) int64 {
		d.cold(t, c)
		f := d.open(t, vfs.ReadOnly)
		buf := make([]byte, window)
		for pos := int64(0); pos < d.size; pos += window {
			if _, err := f.ReadAt(buf, pos); err != nil {
				t.Fatal(err)
			}
			if err := k.Advise(f, pos, window, cachectl.AdviseDontNeed); err != nil {
				t.Fatal(err)
			}
		}
		r, err := c.Residency(f, 0, d.size)
		if err != nil {
			t.Fatal(err)
		}
		return r.Resident * 100 / r.Pages
	}
	t.Logf("64 KiB windows leave %d %%, 1 MiB windows %d %%", left(64<<10), left(1<<20))
	for tries := attempts; ; tries-- { // reclaim may have pages in its hands
		got := left(cachectl.WindowBytes)
		if got == 0 {
			return
		}
		if tries == 0 {
			t.Fatalf("aligned windows of %d bytes leave %d %%", cachectl.WindowBytes, got)
		}
	}
}

func TestLinux_CachestatAgreesWithMincore(t *testing.T) {
	d := newDisk(t, diskBytes)
	requireCachestat(t, d)
	c := newCache("")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	d.cold(t, c)
	set := d.heat(t, rnd)
	if n := countPages(set); n == 0 || n == int64(len(set)) {
		t.Fatalf("%d of %d pages resident: nothing to compare", n, len(set))
	}
	for range 200 {
		pos := rnd.Int64N(d.size)
		n := 1 + rnd.Int64N(d.size-pos)
		first, end := pos/cachectl.PageSize, (pos+n+cachectl.PageSize-1)/cachectl.PageSize
		for left := attempts; ; left-- {
			r, err := c.Residency(d.file, pos, n)
			if err != nil || r.Pages != end-first || r.Method != "cachestat" {
				t.Fatalf("residency of %d bytes at %d: %+v, %v", n, pos, r, err)
			}
			all, err := c.Resident(d.file, pos, n)
			if err != nil {
				t.Fatal(err)
			}
			want := countPages(d.pages(t)[first:end])
			if r.Resident == want && all == (want == end-first) {
				break
			}
			if left == 0 {
				t.Fatalf("residency of %d bytes at %d: %+v, all %v; mincore says %d of %d", n, pos, r, all, want, end-first)
			}
		}
	}
}

func TestLinux_DirtyPagesAreNotDropped(t *testing.T) {
	d := newDisk(t, 4096)
	requireCachestat(t, d)
	c := newCache("")
	const size = 1 << 20
	w, err := d.fs.Open("a", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	data, got := make([]byte, size), make([]byte, size)
	fillPattern(data, 0)
	// A device may have written the pages before the drop comes: then they may go. It is not that fast every time.
	for left := 10; ; left-- {
		if _, err := w.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		e, err := c.Evict(w, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("bytes were lost: %v", err)
		}
		if e.LeftPages > 0 {
			break
		}
		if left == 0 {
			t.Fatalf("dirty pages were dropped: %+v", e)
		}
	}
	if err := w.SyncData(); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Evict(w, 0, size); err != nil || e.LeftPages != 0 || e.DirtyPages != 0 {
		t.Errorf("after the sync: %+v, %v", e, err)
	}
}

func TestLinux_WriteBackCleansEarly(t *testing.T) {
	d := newDisk(t, 4096)
	requireCachestat(t, d)
	c := newCache("")
	const size = 8 << 20
	w, err := d.fs.Open("a", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteBack(w, 0, size); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Residency(w, 0, size); err != nil || r.Dirty != 0 || r.Resident == 0 {
		t.Errorf("pages must be clean or on their way, and stay resident: %+v, %v", r, err)
	}
}

func TestLinux_Warm(t *testing.T) {
	d := newDisk(t, diskBytes)
	c := newCache("")
	want := (d.size - 1<<20 + cachectl.PageSize - 1) / cachectl.PageSize
	for left := attempts; ; left-- {
		d.cold(t, c)
		pages, err := c.Warm(d.file, 1<<20, diskBytes)
		if err != nil {
			t.Fatal(err)
		}
		all, err := c.Resident(d.file, 1<<20, d.size-1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if pages == want && all {
			return
		}
		if left == 0 {
			t.Fatalf("warmed %d pages of %d, all resident: %v", pages, want, all)
		}
	}
}

// TestLinux_ConcurrentReaders: several bypass readers and a hot one on the same file; bytes right, hot pages kept.
func TestLinux_ConcurrentReaders(t *testing.T) {
	d := newDisk(t, diskBytes)
	c := newCache("")
	if _, err := c.Probe(d.fs); err != nil {
		t.Fatal(err)
	}
	d.cold(t, c)
	const hotFrom, hotBytes = 6 << 20, 3 << 20
	hot := d.open(t, vfs.ReadOnly)
	if _, err := hot.ReadAt(make([]byte, hotBytes), hotFrom); err != nil {
		t.Fatal(err)
	}
	// Mapped, so that proactive reclaim, which goes for unmapped pages, does not mix in.
	fd, _ := hot.Fd()
	mem, err := unix.Mmap(int(fd), hotFrom, hotBytes, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	}()
	before := d.pages(t)
	pool, err := cachectl.NewPool(4<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var wg sync.WaitGroup
	for id := range 6 {
		src := d.source(t)
		if id%2 == 1 {
			src.Direct = nil
		}
		wg.Go(func() {
			for pos := int64(id) * 1000; pos < d.size; {
				buf, err := pool.Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				st, err := c.ReadBypass(src, buf, pos, 1<<20)
				if err == nil {
					err = checkPattern(buf.Bytes()[st.Off:][:st.N], pos)
				}
				buf.Release()
				if err != nil {
					t.Errorf("reader %d at %d: %v", id, pos, err)
					return
				}
				pos += st.N
			}
		})
	}
	wg.Wait()
	const first, end = hotFrom / cachectl.PageSize, (hotFrom + hotBytes) / cachectl.PageSize
	after := d.pages(t)
	clear(before[:first])
	clear(before[end:])
	if lost := d.dropped(t, before, after); len(lost) > 0 || countPages(before) != end-first {
		t.Errorf("%d hot pages were dropped: %v", len(lost), lost)
	}
}

// TestLinux_ReadErrorSurfaces: a failing device is an error of the read, not a reason for another method.
func TestLinux_ReadErrorSurfaces(t *testing.T) {
	d := newDisk(t, 1<<20)
	bad := errors.New("device on fire")
	src := d.source(t)
	inner, err := src.Direct()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode    cachectl.ReadMode
		failing error
	}{{cachectl.ModeDirect, unix.EIO}, {cachectl.ModeDirect, bad}, {cachectl.ModeDropBehind, unix.EIO}, {cachectl.ModeBuffered, bad}} {
		cache := newCache(c.mode)
		src := cachectl.Source{
			Buffered: failingFile{src.Buffered, c.failing},
			Direct:   func() (vfs.File, error) { return failingFile{inner, c.failing}, nil },
			Size:     d.size,
		}
		pool, err := cachectl.NewPool(1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		buf, _ := pool.TryGet()
		st, err := cache.ReadBypass(src, buf, 0, 1<<20)
		if !errors.Is(err, c.failing) || st != (cachectl.ReadStat{}) || !strings.Contains(err.Error(), "of a at 0") {
			t.Errorf("%s: %+v, %v; want %v", c.mode, st, err, c.failing)
		}
		if l := cache.Ladders(); len(l) != 1 || !l[0].Rungs[0].Usable {
			t.Errorf("%s: a read error changed the ladder: %+v", c.mode, l)
		}
		buf.Release()
		pool.Close()
	}
}

type failingFile struct {
	vfs.File
	err error
}

func (f failingFile) ReadAt([]byte, int64) (int, error) { return 0, f.err }

const seccompEnv = "LAGOON_CACHECTL_SECCOMP"

// TestLinux_SeccompFallsBackToMincore runs itself again under a filter that answers cachestat with EPERM or ENOSYS, as
// older container runtimes do.
func TestLinux_SeccompFallsBackToMincore(t *testing.T) {
	if errno := os.Getenv(seccompEnv); errno != "" {
		underSeccomp(t, map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS}[errno])
		return
	}
	newDisk(t, 4096)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, errno := range []string{"EPERM", "ENOSYS"} {
		cmd := exec.Command(exe, "-test.run=^TestLinux_SeccompFallsBackToMincore$", "-test.v")
		cmd.Env = append(os.Environ(), seccompEnv+"="+errno)
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("residency by mincore")) {
			t.Errorf("%s: %v\n%s", errno, err, out)
		}
	}
}

func underSeccomp(t *testing.T, errno unix.Errno) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_CACHESTAT},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		t.Fatalf("seccomp: %v", e)
	}
	d := newDisk(t, diskBytes)
	c := newCache(cachectl.ModeDropBehind)
	pool, err := cachectl.NewPool(4<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	src := d.source(t)
	for left := attempts; ; left-- {
		d.cold(t, c)
		before := d.heat(t, rand.New(rand.NewPCG(1, 1)))
		r, err := c.Residency(d.file, 0, d.size)
		if err != nil || r.Method != "mincore" || r.Resident == 0 {
			t.Fatalf("residency %+v, %v", r, err)
		}
		st, err := c.ReadBypass(src, buf, 5000, 4<<20)
		if err != nil || st.Method != cachectl.MethodDropBehind {
			t.Fatalf("bypass read: %+v, %v", st, err)
		}
		after := d.pages(t)
		if st.LeftPages == 0 && r.Resident == countPages(before) && slices.Equal(before, after) {
			break
		}
		if left == 0 { // mincore does not know whether reclaim took them, or had them in its hands
			t.Fatalf("residency %+v, %d pages before the read, %d after, %d of them new; %+v", r, countPages(before), countPages(after), added(before, after), st)
		}
	}
	fmt.Println("residency by mincore")
}
