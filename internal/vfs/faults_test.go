package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
)

func TestFault(t *testing.T) {
	third := &vfs.Fault{Kinds: vfs.OpWrite | vfs.OpTruncate, Name: "d/*.log", Nth: 3, Err: syscall.EIO}
	full := &vfs.Fault{Kinds: vfs.OpCreate, Name: "full*", Nth: 2, Sticky: true, Err: syscall.ENOSPC}
	target := &vfs.Fault{Kinds: vfs.OpRename, Name: "final", Err: syscall.EIO}
	fsys := vfs.WithFaults(vfs.NewMem(1), vfs.Injectors{third, full, target})
	must(t, fsys.MkdirAll("d"))
	log, other := put(t, fsys, "d/a.log", 'x', 10, 0), put(t, fsys, "d/a.idx", 'x', 10, 0)
	must(t, log.Truncate(5))
	must(t, other.Truncate(5))
	_, err := log.WriteAt([]byte("y"), 0)
	var pe *fs.PathError
	if !errors.Is(err, syscall.EIO) || !errors.As(err, &pe) || pe.Path != "mem:/d/a.log" {
		t.Errorf("third write or truncate: %v", err)
	}
	if got := shape(fsys, "d/a.log"); got != "5x" {
		t.Errorf("the failed write left %s", got)
	}
	_, err = log.WriteAt([]byte("y"), 0)
	must(t, err)
	if third.Fired() != 1 || third.Seen() != 4 {
		t.Errorf("fired %d of %d", third.Fired(), third.Seen())
	}

	must(t, create(fsys, "full1"))
	for range 3 {
		if err := create(fsys, "full2"); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("create on a full disk: %v", err)
		}
	}
	if full.Fired() != 3 {
		t.Errorf("fired %d", full.Fired())
	}
	if err := fsys.Rename("full1", "final"); !errors.Is(err, syscall.EIO) {
		t.Errorf("rename: %v", err)
	}
	must(t, fsys.Rename("full1", "final"))
}

// Every operation can be made to fail, and Close gives back what it holds all the same.
func TestFaultEveryKind(t *testing.T) {
	for kind := vfs.OpCreate; kind < vfs.OpAny; kind <<= 1 {
		eio := &vfs.Fault{Kinds: kind, Err: syscall.EIO}
		m := vfs.NewMem(1)
		fsys := vfs.WithFaults(m, eio)
		errs := useAll(t, m, fsys)
		if got := slices.Collect(func(yield func(string) bool) {
			for what, err := range errs {
				if errors.Is(err, syscall.EIO) && !yield(what) {
					return
				}
			}
		}); !slices.Equal(got, []string{kind.String()}) {
			t.Errorf("failing %v failed %q", kind, got)
		}
		if eio.Fired() != 1 {
			t.Errorf("%v fired %d times", kind, eio.Fired())
		}
		if err := lock(m, "lock"); err != nil {
			t.Errorf("failing %v left the lock held: %v", kind, err)
		}
	}
}

// useAll makes each call once, on files made behind the decorator's back.
func useAll(t *testing.T, m *vfs.Mem, fsys vfs.FS) map[string]error {
	put(t, m, "a", 'x', 10, 0)
	errs := map[string]error{
		"create": second(fsys.Create("new")), "rename": fsys.Rename("a", "b"), "remove": fsys.Remove("b"), "list": list(fsys, "."),
		"stat": second(fsys.Stat(".")), "mkdir": fsys.MkdirAll("d"), "syncdir": fsys.SyncDir("."), "usage": second(fsys.Usage()),
	}
	l, err := fsys.Lock("lock")
	errs["lock"] = err
	if err == nil {
		errs["unlock"] = l.Close()
	}
	put(t, m, "c", 'x', 10, 0)
	f, err := fsys.Open("c", vfs.ReadWrite)
	errs["open"] = err
	if err == nil {
		errs["read"] = second(f.ReadAt(make([]byte, 1), 0))
		errs["write"] = second(f.WriteAt([]byte("y"), 0))
		errs["size"] = second(f.Size())
		errs["truncate"] = f.Truncate(5)
		errs["allocate"] = f.Allocate(0, 10)
		errs["sync"] = f.SyncData()
		errs["close"] = f.Close()
		if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	}
	return errs
}

func TestShortWrite(t *testing.T) {
	for _, c := range []struct{ bytes, want int }{{0, 0}, {7, 7}, {99, 9}, {-1, 0}} {
		short := &vfs.Fault{Kinds: vfs.OpWrite, Err: &vfs.ShortWrite{Bytes: c.bytes, Err: syscall.ENOSPC}}
		m := vfs.NewMem(1)
		f, err := vfs.WithFaults(m, short).Create("a")
		must(t, err)
		n, err := f.WriteAt([]byte("0123456789"), 0)
		size, _ := f.Size()
		if n != c.want || size != int64(c.want) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("short write of %d = %d, %v; size %d", c.bytes, n, err, size)
		}
	}
}

func TestPowerCut(t *testing.T) {
	for after := int64(1); ; after++ {
		cut := &vfs.PowerCut{After: after}
		m := vfs.NewMem(1)
		fsys := vfs.WithFaults(m, cut)
		err := vfs.WriteFileAtomic(fsys, "a", []byte("data"))
		if err == nil {
			if after != cut.Points() || cut.Cut() {
				t.Errorf("no cut after %d of %d", after, cut.Points())
			}
			if after != 5 { // create, write, sync, rename, syncdir
				t.Errorf("WriteFileAtomic has %d points", after)
			}
			return
		}
		if !errors.Is(err, vfs.ErrPowerCut) || !cut.Cut() {
			t.Errorf("after %d: %v", after, err)
		}
		if err := list(fsys, "."); !errors.Is(err, vfs.ErrPowerCut) {
			t.Errorf("a read without power: %v", err)
		}
	}
}

// A cut at every step of WriteFileAtomic, with many seeds: the old or the new content, and the new one once it returned.
func TestWriteFileAtomicCrash(t *testing.T) {
	for after := int64(1); after <= 5; after++ {
		for seed := range uint64(100) {
			m := vfs.NewMem(seed)
			must(t, vfs.WriteFileAtomic(m, "a", []byte("old, longer than the new one")))
			err := vfs.WriteFileAtomic(vfs.WithFaults(m, &vfs.PowerCut{After: after}), "a", []byte("new"))
			next := m.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true})
			got, readErr := vfs.ReadFile(next, "a", 100)
			must(t, readErr)
			if s := string(got); s != "new" && (err == nil || s != "old, longer than the new one") {
				t.Fatalf("cut after %d, seed %d: %q (returned %v)", after, seed, s, err)
			}
			must(t, vfs.WriteFileAtomic(next, "a", []byte("again"))) // whatever leftover there is
		}
	}
}

// Each call of WriteFileAtomic fails in turn: the error surfaces and the old content stays, or the new is whole.
func TestWriteFileAtomicFaults(t *testing.T) {
	for nth := int64(1); nth <= 6; nth++ {
		m := vfs.NewMem(1)
		must(t, vfs.WriteFileAtomic(m, "a", []byte("old")))
		fault := &vfs.Fault{Nth: nth, Err: syscall.EIO}
		err := vfs.WriteFileAtomic(vfs.WithFaults(m, fault), "a", []byte("new"))
		if fault.Fired() != 1 || !errors.Is(err, syscall.EIO) {
			t.Errorf("fault %d: fired %d, returned %v", nth, fault.Fired(), err)
		}
		want := "old"
		if nth == 6 { // the directory's sync: the rename has happened
			want = "new"
		}
		if got, err := vfs.ReadFile(m, "a", 100); string(got) != want {
			t.Errorf("fault %d left %q (%v)", nth, got, err)
		}
		if _, err := m.Stat("a.tmp"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("fault %d left the temporary file (%v)", nth, err)
		}
	}
}

func TestTrace(t *testing.T) {
	var trace []string
	eio := &vfs.Fault{Kinds: vfs.OpSync, Nth: 2, Err: syscall.EIO}
	m := vfs.NewMem(1)
	m.SetDirect(vfs.Alignment{Mem: 1, Off: 512})
	fsys := vfs.WithTrace(vfs.WithFaults(m, eio), func(op vfs.Op) {
		trace = append(trace, fmt.Sprint(op.N, " ", op))
	})
	must(t, vfs.WriteFileAtomic(fsys, "a", []byte("data")))
	f, err := fsys.Open("a", vfs.Direct)
	must(t, err)
	_, _ = f.ReadAt(make([]byte, 512), 512)
	_ = f.SyncData()
	must(t, f.Close())
	_ = fsys.Remove("no")
	want := []string{
		"1 create a.tmp",
		"2 write a.tmp 0+4",
		"3 sync a.tmp",
		"4 close a.tmp",
		"5 rename a.tmp -> a",
		"6 syncdir .",
		"7 open a direct",
		"8 read a 512+512: EOF",
		"9 sync a: sync mem:/a: input/output error",
		"10 close a",
		"11 remove no: remove mem:/no: no such file or directory",
	}
	if !slices.Equal(trace, want) {
		t.Errorf("trace\n%q\nwant\n%q", trace, want)
	}
}
