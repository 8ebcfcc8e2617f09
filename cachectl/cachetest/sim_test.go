package cachetest_test

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/vfs"
	"lagoon/internal/vfs/vfstest"
)

const mib = 1 << 20

// TestFS_Contract: the simulation in between changes nothing about the file system. (vfs.DirectAlign does not know the
// simulation's files, so its direct part is left to the tests below.)
func TestFS_Contract(t *testing.T) {
	vfstest.Test(t, func(t *testing.T) vfs.FS {
		return cachetest.New(cachetest.Options{NoDirect: true}).FS(vfs.NewMem(3))
	})
}

func create(t *testing.T, fs vfs.FS, name string, size int) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t *testing.T, fs vfs.FS, name string, mode vfs.Mode) vfs.File {
	t.Helper()
	f, err := fs.Open(name, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func read(t *testing.T, f vfs.File, pos, n int64) {
	t.Helper()
	if _, err := f.ReadAt(make([]byte, n), pos); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantMap(t *testing.T, s *cachetest.Sim, f vfs.File, want string) {
	t.Helper()
	if got := s.Map(f); got != want {
		t.Errorf("resident %s, want %s", got, want)
	}
}

func coldFile(t *testing.T, s *cachetest.Sim, fs vfs.FS, name string, size int) vfs.File {
	t.Helper()
	f := create(t, fs, name, size)
	do(t, f.SyncData())
	do(t, s.Advise(f, 0, int64(size), cachectl.AdviseDontNeed))
	wantMap(t, s, f, "-")
	return open(t, fs, name, vfs.ReadOnly)
}

// TestReclaim_ScanResistance: a scan drives out what was touched once and spares what was touched twice.
func TestReclaim_ScanResistance(t *testing.T) {
	s := cachetest.New(cachetest.Options{CapacityBytes: 8 * mib})
	fs := s.FS(vfs.NewMem(1))
	loved := create(t, fs, "loved", 2*mib) // written: one touch
	read(t, loved, 0, 2*mib)               // read: two
	fresh := create(t, fs, "fresh", 2*mib) // written, its reader has not come yet
	scan := coldFile(t, s, fs, "scan", 32*mib)
	for pos := int64(0); pos < 32*mib; pos += mib {
		read(t, scan, pos, mib)
	}
	wantMap(t, s, loved, "0-511(dirty)")
	wantMap(t, s, fresh, "-")
	if used := s.UsedBytes(); used > 8*mib {
		t.Errorf("%d bytes used of %d", used, 8*mib)
	}
	counts, err := s.Cachestat(fresh, 0, 2*mib)
	if err != nil || counts.Evicted != 512 || counts.Resident != 0 {
		t.Errorf("shadows: %+v, %v", counts, err)
	}
}

// TestDontNeed_Windows: partly covered folios stay.
func TestDontNeed_Windows(t *testing.T) {
	for _, c := range []struct {
		window int64
		small  bool
		want   string
	}{
		{64 << 10, false, "0-2047"}, {mib, false, "0-2047"}, {2 * mib, false, "-"}, {64 << 10, true, "-"},
	} {
		s := cachetest.New(cachetest.Options{ReadAheadBytes: 8 * mib, SmallFolios: c.small})
		f := coldFile(t, s, s.FS(vfs.NewMem(1)), "a", 8*mib)
		for pos := int64(0); pos < 8*mib; pos += c.window {
			read(t, f, pos, c.window)
			do(t, s.Advise(f, pos, c.window, cachectl.AdviseDontNeed))
		}
		wantMap(t, s, f, c.want)
	}
}

func TestDontNeed_SparesDirty(t *testing.T) {
	s := cachetest.New(cachetest.Options{})
	f := create(t, s.FS(vfs.NewMem(1)), "a", 2*mib)
	drop := func() { do(t, s.Advise(f, 0, 2*mib, cachectl.AdviseDontNeed)) }
	drop()
	wantMap(t, s, f, "0-511(dirty)")
	do(t, s.StartWriteBack(f, 0, 2*mib))
	drop()
	wantMap(t, s, f, "0-511(dirty)")
	s.Settle()
	wantMap(t, s, f, "0-511")
	drop()
	wantMap(t, s, f, "-")
}

// A sync of a range cleans the pages of the range and no others.
func TestSyncRange(t *testing.T) {
	s := cachetest.New(cachetest.Options{SmallFolios: true})
	f := create(t, s.FS(vfs.NewMem(1)), "a", 2*mib)
	do(t, f.SyncRange(mib, mib/2))
	do(t, s.Advise(f, 0, 2*mib, cachectl.AdviseDontNeed))
	wantMap(t, s, f, "0-255(dirty) 384-511(dirty)")
}

// TestDontCache: own pages go, others' stay, read-ahead of such reads stays until it is read.
func TestDontCache(t *testing.T) {
	s := cachetest.New(cachetest.Options{ReadAheadBytes: 8 * mib})
	fs := s.FS(vfs.NewMem(1))
	f := coldFile(t, s, fs, "a", 8*mib)
	p := make([]byte, mib)
	_, err := s.ReadDontCache(f, p, 0)
	do(t, err)
	wantMap(t, s, f, "512-2047") // as measured: pages beyond the last read
	for pos := int64(mib); pos < 8*mib; pos += mib {
		_, err = s.ReadDontCache(f, p, pos)
		do(t, err)
	}
	wantMap(t, s, f, "-") // a reader that goes on takes them away

	do(t, s.Advise(f, 0, 0, cachectl.AdviseRandom))
	hot := open(t, fs, "a", vfs.ReadOnly)
	do(t, s.Advise(hot, 0, 0, cachectl.AdviseRandom))
	read(t, hot, 4096*10, 4096*2)
	_, err = s.ReadDontCache(f, p, 0)
	do(t, err)
	wantMap(t, s, f, "10-11")

	s.Set(func(o *cachetest.Options) { o.NoDontCache = true })
	if _, err := s.ReadDontCache(f, p, 0); !errors.Is(err, cachectl.ErrMethodUnsupported) || !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("without support: %v", err)
	}
}

func TestDirect(t *testing.T) {
	s := cachetest.New(cachetest.Options{DirectAlign: 4096})
	fs := s.FS(vfs.NewMem(1))
	f := create(t, fs, "a", 2*mib+100)
	direct := open(t, fs, "a", vfs.Direct)
	buf := vfstest.Aligned(mib, 4096)
	n, err := direct.ReadAt(buf, 0)
	if n != mib || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}
	wantMap(t, s, f, "0-511 512-512(dirty)") // the folio it read was cleaned, and stays
	if n, err := direct.ReadAt(buf, 2*mib); n != 100 || !errors.Is(err, io.EOF) {
		t.Errorf("tail: %d, %v", n, err)
	}
	for _, bad := range []struct {
		p   []byte
		off int64
	}{{buf[:4096], 512}, {buf[:100], 0}, {buf[8:][:4096], 0}} {
		if _, err := direct.ReadAt(bad.p, bad.off); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("misaligned read: %v", err)
		}
	}
	s.Set(func(o *cachetest.Options) { o.NoDirect = true })
	if _, err := fs.Open("a", vfs.Direct); !errors.Is(err, vfs.ErrDirectUnsupported) {
		t.Errorf("without support: %v", err)
	}
}

// TestNames: pages follow the file through renames and go with it.
func TestNames(t *testing.T) {
	s := cachetest.New(cachetest.Options{})
	fs := s.FS(vfs.NewMem(1))
	do(t, fs.MkdirAll("d"))
	create(t, fs, "d/a", mib)
	do(t, fs.Rename("d", "e"))
	f := open(t, fs, "e/a", vfs.ReadWrite)
	wantMap(t, s, f, "0-255(dirty)")
	create(t, fs, "b", mib)
	do(t, fs.Rename("e/a", "b"))
	if used := s.UsedBytes(); used != mib {
		t.Errorf("%d bytes used after a file was replaced, want %d", used, mib)
	}
	do(t, f.Truncate(10*4096+1))
	wantMap(t, s, f, "0-10(dirty)")
	do(t, fs.Remove("b"))
	if used := s.UsedBytes(); used != 0 {
		t.Errorf("%d bytes used by removed files", used)
	}
	if got := s.Map(create(t, vfs.NewMem(2), "x", 1)); got != cachectl.ErrNoKernelFile.Error() {
		t.Errorf("a stranger's file: %s", got)
	}
}

// TestInMemory: nothing leaves.
func TestInMemory(t *testing.T) {
	s := cachetest.New(cachetest.Options{InMemory: true})
	fs := s.FS(vfs.NewMem(1))
	f := create(t, fs, "a", mib)
	do(t, f.SyncData())
	do(t, s.Advise(f, 0, mib, cachectl.AdviseDontNeed))
	wantMap(t, s, f, "0-255")
}
