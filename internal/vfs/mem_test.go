package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
)

// outcomes crashes what build leaves, with many seeds, and checks that what observe then sees is exactly want: nothing
// that may not happen, and everything that may.
func outcomes(t *testing.T, opt vfs.CrashOptions, build func(m *vfs.Mem), observe func(m *vfs.Mem) string, want ...string) {
	t.Helper()
	seen := map[string]bool{}
	for seed := range uint64(300) {
		m := vfs.NewMem(seed)
		build(m)
		opt.Seed = seed
		seen[observe(m.Crash(opt))] = true
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
		t.Errorf("a crash leaves %q, want %q", got, want)
	}
}

var random = vfs.CrashOptions{KeepPercent: vfs.KeepRandom}

// shape tells a file's content by runs of equal bytes: "4096o 100n", zeros as ".".
func shape(fsys vfs.FS, name string) string {
	data, err := vfs.ReadFile(fsys, name, 1<<24)
	if errors.Is(err, fs.ErrNotExist) {
		return "absent"
	}
	if err != nil {
		return err.Error()
	}
	var runs []string
	for len(data) > 0 {
		n := len(data) - len(bytes.TrimLeft(data, string(data[:1])))
		runs = append(runs, fmt.Sprintf("%d%s", n, strings.ReplaceAll(string(data[:1]), "\x00", ".")))
		data = data[n:]
	}
	return strings.Join(runs, " ")
}

func shapeOf(name string) func(m *vfs.Mem) string {
	return func(m *vfs.Mem) string { return shape(m, name) }
}

// put creates or opens name and writes n times c at off.
func put(t *testing.T, fsys vfs.FS, name string, c byte, n int, off int64) vfs.File {
	t.Helper()
	f, err := fsys.Open(name, vfs.ReadWrite)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = fsys.Create(name)
	}
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{c}, n), off)
	must(t, err)
	return f
}

// durable makes a file whose bytes and name survive.
func durable(t *testing.T, fsys vfs.FS, name string, c byte, n int) vfs.File {
	t.Helper()
	f := put(t, fsys, name, c, n, 0)
	must(t, f.SyncData())
	must(t, fsys.SyncDir("."))
	return f
}

func TestCrashData(t *testing.T) {
	overwrite := func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 4096)
		put(t, m, "a", 'n', 4096, 0)
	}
	outcomes(t, vfs.CrashOptions{}, overwrite, shapeOf("a"), "4096o")
	outcomes(t, vfs.CrashOptions{KeepPercent: 100}, overwrite, shapeOf("a"), "4096n")
	outcomes(t, random, overwrite, shapeOf("a"), "4096o", "4096n")

	outcomes(t, random, func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 100)
		put(t, m, "a", 'n', 4096, 4096)
	}, shapeOf("a"),
		"100o",             // nothing happened
		"100o 3996.",       // the size moved forward by a block
		"100o 8092.",       // the size is there, the bytes are not
		"100o 3996. 4096n") // all is there

	outcomes(t, random, func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 4096)
		for _, c := range []byte("123") { // write-back may run between two writes
			put(t, m, "a", c, 4096, 0)
		}
	}, shapeOf("a"), "4096o", "40961", "40962", "40963")

	outcomes(t, random, func(m *vfs.Mem) {
		f := durable(t, m, "a", 'o', 5000)
		put(t, m, "a", 'n', 5000, 0)
		must(t, f.SyncData())
	}, shapeOf("a"), "5000n")
}

func TestCrashTorn(t *testing.T) {
	mixed := false
	outcomes(t, vfs.CrashOptions{KeepPercent: vfs.KeepRandom, Tear: true}, func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 4096)
		put(t, m, "a", 'n', 4096, 0)
	}, func(m *vfs.Mem) string {
		data, err := vfs.ReadFile(m, "a", 4096)
		must(t, err)
		for sector := range slices.Chunk(data, 512) {
			if bytes.Count(sector, sector[:1]) != 512 {
				t.Fatal("a sector was torn")
			}
		}
		mixed = mixed || bytes.Contains(data, []byte("on"))
		return fmt.Sprint(len(data))
	}, "4096")
	if !mixed {
		t.Error("no block was torn")
	}
}

func TestCrashTruncate(t *testing.T) {
	outcomes(t, random, func(m *vfs.Mem) {
		must(t, durable(t, m, "a", 'o', 3*4096).Truncate(4096))
	}, shapeOf("a"), "12288o", "4096o")

	// Cut and written on: what was cut off never shows through as if it were new.
	outcomes(t, random, func(m *vfs.Mem) {
		must(t, durable(t, m, "a", 'o', 3*4096).Truncate(4096))
		put(t, m, "a", 'n', 4096, 4096)
	}, shapeOf("a"), "12288o", "4096o", "4096o 4096.", "4096o 4096n")

	outcomes(t, random, func(m *vfs.Mem) {
		f := durable(t, m, "a", 'o', 3*4096)
		must(t, f.Truncate(100))
		must(t, f.SyncData())
		must(t, f.Truncate(8192))
		must(t, f.SyncData())
	}, shapeOf("a"), "100o 8092.")
}

// What lay beyond a size that a crash took back reads as zeros when the file grows again.
func TestCrashBeyondSize(t *testing.T) {
	outcomes(t, vfs.CrashOptions{}, func(m *vfs.Mem) {
		f := durable(t, m, "a", 'o', 4096)
		must(t, f.Truncate(100))
		must(t, f.SyncData())
		put(t, m, "a", 'n', 4096, 0)
	}, func(m *vfs.Mem) string {
		must(t, put(t, m, "a", 'x', 1, 0).Truncate(4096))
		return shape(m, "a")
	}, "1x 99o 3996.")
	outcomes(t, random, func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 100)
		put(t, m, "a", 'n', 4096, 0)
	}, func(m *vfs.Mem) string {
		size := len(shape(m, "a"))
		must(t, put(t, m, "a", 'x', 1, 0).Truncate(8192))
		if size == len("100o") {
			return shape(m, "a")
		}
		return "grown"
	}, "1x 99o 8092.", "1x 99n 8092.", "grown")
}

func TestCrashNames(t *testing.T) {
	both := func(m *vfs.Mem) string { return "a " + shape(m, "a") + ", b " + shape(m, "b") }

	outcomes(t, random, func(m *vfs.Mem) { // a name is not durable by syncing the file
		must(t, put(t, m, "a", 'n', 10, 0).SyncData())
	}, shapeOf("a"), "absent", "10n")
	outcomes(t, random, func(m *vfs.Mem) { // nor the bytes by syncing the directory
		put(t, m, "a", 'n', 10, 0)
		must(t, m.SyncDir("."))
	}, shapeOf("a"), "", "10.", "10n")
	outcomes(t, random, func(m *vfs.Mem) {
		durable(t, m, "a", 'o', 10)
		must(t, m.Remove("a"))
	}, shapeOf("a"), "absent", "10o")
	outcomes(t, random, func(m *vfs.Mem) { // a rename happens or does not
		durable(t, m, "a", 'n', 10)
		durable(t, m, "b", 'o', 10)
		must(t, m.Rename("a", "b"))
	}, both, "a 10n, b 10o", "a absent, b 10n")
	outcomes(t, random, func(m *vfs.Mem) { // one after the other: no state that never was
		durable(t, m, "x", 'n', 10)
		must(t, m.Rename("x", "a"))
		must(t, m.Rename("a", "b"))
	}, func(m *vfs.Mem) string { return "x " + shape(m, "x") + ", " + both(m) },
		"x 10n, a absent, b absent", "x absent, a 10n, b absent", "x absent, a absent, b 10n")
	outcomes(t, random, func(m *vfs.Mem) { // renamed without syncing the bytes first: the classic loss
		durable(t, m, "b", 'o', 10)
		put(t, m, "a", 'n', 10, 0)
		must(t, m.Rename("a", "b"))
		must(t, m.SyncDir("."))
	}, shapeOf("b"), "", "10.", "10n")
	outcomes(t, random, func(m *vfs.Mem) { // independent names are kept or lost on their own
		must(t, put(t, m, "a", 'n', 10, 0).SyncData())
		must(t, put(t, m, "b", 'n', 10, 0).SyncData())
	}, both, "a absent, b absent", "a 10n, b absent", "a absent, b 10n", "a 10n, b 10n")
}

func TestCrashRenameBetweenDirectories(t *testing.T) {
	where := func(m *vfs.Mem) string {
		return "from " + shape(m, "from/a") + ", to " + shape(m, "to/a")
	}
	move := func(sync ...string) func(m *vfs.Mem) {
		return func(m *vfs.Mem) {
			must(t, m.MkdirAll("from"))
			must(t, m.MkdirAll("to"))
			must(t, put(t, m, "from/a", 'x', 10, 0).SyncData())
			must(t, m.SyncDir("from"))
			must(t, m.Rename("from/a", "to/a"))
			for _, dir := range sync {
				must(t, m.SyncDir(dir))
			}
		}
	}
	const stayed, moved = "from 10x, to absent", "from absent, to 10x"
	outcomes(t, random, move(), where, stayed, moved)
	outcomes(t, random, move("to"), where, "from 10x, to 10x", moved)
	outcomes(t, random, move("from"), where, "from absent, to absent", moved)
	outcomes(t, random, move("to", "from"), where, moved)
}

func TestCrashDirectories(t *testing.T) {
	outcomes(t, random, func(m *vfs.Mem) {
		must(t, m.MkdirAll("d/e"))
		must(t, put(t, m, "d/e/a", 'x', 10, 0).SyncData())
	}, func(m *vfs.Mem) string {
		if _, err := m.List("d/e"); err != nil { // MkdirAll is durable
			return err.Error()
		}
		return shape(m, "d/e/a")
	}, "absent", "10x")

	outcomes(t, random, func(m *vfs.Mem) { // also of a directory that was there, but not durably
		must(t, m.MkdirAll("d"))
		must(t, m.Rename("d", "e"))
		must(t, m.MkdirAll("e"))
	}, func(m *vfs.Mem) string { return fmt.Sprint(list(m, "e")) }, "<nil>")

	outcomes(t, random, func(m *vfs.Mem) {
		must(t, m.MkdirAll("d"))
		must(t, put(t, m, "d/a", 'x', 10, 0).SyncData())
		must(t, m.SyncDir("d"))
		must(t, m.Rename("d", "d.delete"))
		must(t, m.Remove("d.delete/a"))
		must(t, m.Remove("d.delete"))
	}, func(m *vfs.Mem) string {
		list, err := m.List(".")
		must(t, err)
		s := ""
		for _, e := range list {
			s += e.Name + " " + shape(m, e.Name+"/a")
		}
		return s
	}, "d 10x", "d absent", "d.delete 10x", "d.delete absent", "")
}

// What ext4 and xfs were measured to do: the error comes once, the bytes are seen in the cache and are not on disk,
// and the next sync reports success.
func TestFailedSyncLosesData(t *testing.T) {
	m := vfs.NewMem(1)
	m.SetDirect(vfs.Alignment{Mem: 1, Off: 4096})
	eio := &vfs.Fault{Kinds: vfs.OpSync, Name: "a", Nth: 2, Err: syscall.EIO}
	fsys := vfs.WithTrace(vfs.WithFaults(m, eio), func(vfs.Op) {})
	f := durable(t, fsys, "a", 'o', 4096)
	put(t, fsys, "a", 'n', 8192, 0)
	if err := f.SyncData(); !errors.Is(err, syscall.EIO) || eio.Fired() != 1 {
		t.Fatalf("sync: %v, fired %d", err, eio.Fired())
	}
	must(t, f.SyncData())
	if got := shape(fsys, "a"); got != "8192n" {
		t.Errorf("the cache holds %s", got)
	}
	direct, err := fsys.Open("a", vfs.Direct)
	must(t, err)
	buf := make([]byte, 8192)
	_, err = direct.ReadAt(buf, 0)
	must(t, err)
	if want := append(bytes.Repeat([]byte("o"), 4096), make([]byte, 4096)...); !bytes.Equal(buf, want) {
		t.Error("a direct read sees what never reached the disk")
	}
	put(t, fsys, "a", 'p', 1, 0) // a page that is written to again is whole again
	_, err = direct.ReadAt(buf, 0)
	must(t, err)
	if want := append(append([]byte("p"), bytes.Repeat([]byte("n"), 4095)...), make([]byte, 4096)...); !bytes.Equal(buf, want) {
		t.Error("a direct read does not see what was written after the failed sync")
	}
	eio.Nth = 4
	if err := f.SyncData(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	const remains = "4096o 4096."
	if got := shape(m.Crash(vfs.CrashOptions{KeepPercent: 100, Live: true}), "a"); got != remains {
		t.Errorf("after a crash: %s", got)
	}
	m.DropCaches()
	if got := shape(fsys, "a"); got != remains {
		t.Errorf("after the cache was dropped: %s", got)
	}
	put(t, fsys, "a", 'r', 8192, 0)
	if err := f.SyncData(); err != nil || eio.Seen() != 5 {
		t.Errorf("sync: %v, seen %d", err, eio.Seen())
	}
	if got := shape(m.Crash(vfs.CrashOptions{}), "a"); got != "8192r" {
		t.Errorf("written again and synced: %s", got)
	}
}

func TestKill(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", 'o', 4096)
	put(t, m, "a", 'n', 5000, 0)
	put(t, m, "b", 'n', 10, 0)
	_, err := m.Lock(".lock")
	must(t, err)

	next := m.Kill()
	if got := shape(next, "a") + ", " + shape(next, "b"); got != "5000n, 10n" {
		t.Errorf("after the kill: %s", got)
	}
	must(t, lock(next, ".lock"))
	for what, err := range map[string]error{
		"write": second(f.WriteAt([]byte("x"), 0)), "read": second(f.ReadAt(make([]byte, 1), 0)), "sync": f.SyncData(),
		"size": second(f.Size()), "truncate": f.Truncate(0), "allocate": f.Allocate(0, 1),
		"create": create(m, "c"), "open": open(m, "a", vfs.ReadOnly), "list": list(m, "."), "sync directory": m.SyncDir("."),
		"mkdir": m.MkdirAll("d"), "rename": m.Rename("a", "c"), "remove": m.Remove("a"), "lock": lock(m, ".lock"),
		"stat": second(m.Stat("a")), "usage": second(m.Usage()),
	} {
		if !errors.Is(err, vfs.ErrDead) {
			t.Errorf("%s after the kill: %v, want ErrDead", what, err)
		}
	}
	must(t, f.Close())

	put(t, next, "a", 'l', 10, 0) // must not show in other copies
	if got := shape(m.Kill(), "a"); got != "5000n" {
		t.Errorf("killed again from the same moment: %s", got)
	}
	if got := shape(next.Crash(vfs.CrashOptions{}), "a"); got != "4096o" {
		t.Errorf("the power cut after the kill left %s", got)
	}
}

// Copies share pages; neither sees what is written to the other.
func TestCopiesAreApart(t *testing.T) {
	const blocks = 64
	for name, copyOf := range map[string]func(m *vfs.Mem) *vfs.Mem{
		"crash": func(m *vfs.Mem) *vfs.Mem { return m.Crash(vfs.CrashOptions{KeepPercent: 100, Live: true}) },
		"kill":  (*vfs.Mem).Kill,
	} {
		m := vfs.NewMem(1)
		put(t, m, "a", 'o', blocks*4096, 0)
		must(t, m.SyncDir("."))
		first, other := copyOf(m), copyOf(m)
		for i := range int64(blocks) {
			put(t, first, "a", 'n', 10, i*4096)
		}
		if got, want := shape(other, "a"), fmt.Sprintf("%do", blocks*4096); got != want {
			t.Errorf("%s: the second copy reads %s", name, got)
		}
		if name != "crash" {
			continue
		}
		for i := range int64(blocks) {
			put(t, m, "a", 'x', 10, i*4096)
		}
		if got, want := shape(other, "a"), fmt.Sprintf("%do", blocks*4096); got != want {
			t.Errorf("%s: with the original written to, the copy reads %s", name, got)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestCrashLive(t *testing.T) {
	m := vfs.NewMem(1)
	f := durable(t, m, "a", 'o', 10)
	put(t, m, "a", 'n', 10, 0)
	crashed := m.Crash(vfs.CrashOptions{KeepPercent: 100, Live: true})
	put(t, m, "a", 'x', 10, 0)
	must(t, f.SyncData())
	if got := shape(crashed, "a"); got != "10n" {
		t.Errorf("the copy changed to %s", got)
	}
	put(t, crashed, "a", 'y', 10, 0)
	if got := shape(m, "a"); got != "10x" {
		t.Errorf("the original changed to %s", got)
	}
	if got := crashed.Unsynced(); !slices.Equal(got, []string{"data a"}) {
		t.Errorf("Unsynced = %q", got)
	}
	must(t, m.Rename("a", "b"))
	if got := m.Unsynced(); !slices.Equal(got, []string{"name a", "name b"}) {
		t.Errorf("Unsynced = %q", got)
	}
	must(t, m.SyncDir("."))
	if got := m.Unsynced(); len(got) != 0 {
		t.Errorf("Unsynced = %q", got)
	}
}

func TestCrashRepeats(t *testing.T) {
	run := func(seed uint64) string {
		m := vfs.NewMem(7)
		durable(t, m, "a", 'o', 10*4096)
		for i := range 30 {
			put(t, m, "a", byte('a'+i%26), 3000, int64(i*1111))
			put(t, m, fmt.Sprint("f", i%5), 'x', 10*i, 0)
		}
		next := m.Crash(vfs.CrashOptions{Seed: seed, KeepPercent: vfs.KeepRandom, Tear: true})
		s := shape(next, "a")
		for i := range 5 {
			s += ", " + shape(next, fmt.Sprint("f", i))
		}
		return s
	}
	first, again := run(1), run(1)
	if first != again {
		t.Error("the same seed gave different crashes")
	}
	if first == run(2) {
		t.Error("two seeds gave the same crash")
	}
}

func TestCapacity(t *testing.T) {
	m := vfs.NewMem(1)
	m.SetCapacity(10 * 4096)
	f := put(t, m, "a", 'x', 4*4096, 0)
	must(t, f.Allocate(0, 8*4096))
	wantFree := func(blocks int64) {
		t.Helper()
		if u, err := m.Usage(); err != nil || u.FreeBytes != blocks*4096 || u.TotalBytes != 10*4096 {
			t.Errorf("Usage = %+v, %v; want %d blocks free", u, err, blocks)
		}
	}
	wantFree(2)
	if err := f.Allocate(0, 11*4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Allocate = %v", err)
	}
	wantFree(2)
	g, err := m.Create("b")
	must(t, err)
	n, err := g.WriteAt(make([]byte, 3*4096), 100)
	if n != 2*4096-100 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt on a full disk = %d, %v", n, err)
	}
	if size, err := g.Size(); size != 2*4096 || err != nil {
		t.Errorf("Size = %d, %v", size, err)
	}
	wantFree(0)
	put(t, m, "a", 'y', 8*4096, 0) // into what was allocated
	must(t, f.Truncate(4096))
	wantFree(7)
	must(t, m.Remove("b"))
	wantFree(7)
	must(t, g.Close())
	wantFree(9)
	must(t, f.SyncData())
	must(t, m.SyncDir("."))
	m = m.Crash(vfs.CrashOptions{})
	wantFree(9)
}

func TestMemDirectUnsupported(t *testing.T) {
	m := vfs.NewMem(1)
	put(t, m, "a", 'x', 10, 0)
	for _, mode := range []vfs.Mode{vfs.Direct, vfs.DirectSync} {
		if err := open(m, "a", mode); !errors.Is(err, vfs.ErrDirectUnsupported) {
			t.Error(err)
		}
	}
}

// What lies in a range that was synced outlives every crash, and the size that it needs; the rest of the file may be lost.
func TestCrashSyncRange(t *testing.T) {
	t.Run("inside", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 3*4096)
			must(t, put(t, m, "a", 'n', 2*4096, 0).SyncRange(4096, 4096))
		}, shapeOf("a"), "4096o 4096n 4096o", "8192n 4096o")
	})
	t.Run("growing", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 4096)
			must(t, put(t, m, "a", 'n', 2*4096, 4096).SyncRange(4096, 4096))
		}, shapeOf("a"), "4096o 4096n", "4096o 4096n 4096.", "4096o 8192n")
	})
	t.Run("to the end", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 4096)
			must(t, put(t, m, "a", 'n', 5000, 4096).SyncRange(4096, 5000))
		}, shapeOf("a"), "4096o 5000n")
	})
	t.Run("after a cut", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			must(t, durable(t, m, "a", 'o', 3*4096).Truncate(4096))
			must(t, put(t, m, "a", 'n', 4096, 4096).SyncRange(4096, 4096))
		}, shapeOf("a"), "4096o 4096n")
	})
}

// A sync of a range that failed has lost what a sync that failed has lost.
func TestFailedSyncRangeLosesData(t *testing.T) {
	m := vfs.NewMem(1)
	eio := &vfs.Fault{Kinds: vfs.OpSync, Name: "a", Nth: 2, Err: syscall.EIO}
	fsys := vfs.WithTrace(vfs.WithFaults(m, eio), func(vfs.Op) {})
	f := durable(t, fsys, "a", 'o', 4096)
	put(t, fsys, "a", 'n', 4096, 0)
	if err := f.SyncRange(0, 4096); !errors.Is(err, syscall.EIO) || eio.Fired() != 1 {
		t.Fatalf("sync: %v, fired %d", err, eio.Fired())
	}
	must(t, f.SyncRange(0, 4096))
	if got := shape(m.Crash(vfs.CrashOptions{KeepPercent: 100}), "a"); got != "4096o" {
		t.Errorf("after a crash: %s", got)
	}
}

// What was written to a DirectSync file outlives every crash, and its size; what others wrote to the file does not.
func TestCrashDirectSync(t *testing.T) {
	direct := func(t *testing.T, m *vfs.Mem, c byte, n int, off int64) {
		t.Helper()
		m.SetDirect(vfs.Alignment{Mem: 1, Off: 512})
		f, err := m.Open("a", vfs.DirectSync)
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{c}, n), off)
		must(t, errors.Join(err, f.Close()))
	}
	t.Run("inside", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 3*4096)
			put(t, m, "a", 'n', 4096, 0)
			direct(t, m, 'd', 4096, 4096)
		}, shapeOf("a"), "4096o 4096d 4096o", "4096n 4096d 4096o")
	})
	t.Run("part of a block", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 4096)
			direct(t, m, 'd', 512, 1024)
		}, shapeOf("a"), "1024o 512d 2560o")
	})
	t.Run("growing", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 4096)
			direct(t, m, 'd', 4096, 8192)
		}, shapeOf("a"), "4096o 4096. 4096d")
	})
	t.Run("after a cut", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			f := durable(t, m, "a", 'o', 3*4096)
			must(t, f.Truncate(4096))
			direct(t, m, 'd', 4096, 8192)
		}, shapeOf("a"), "4096o 4096. 4096d")
	})
	t.Run("in part", func(t *testing.T) {
		outcomes(t, random, func(m *vfs.Mem) {
			durable(t, m, "a", 'o', 8192)
			m.SetDirect(vfs.Alignment{Mem: 1, Off: 512})
			f, err := vfs.WithFaults(m, &vfs.Fault{Kinds: vfs.OpWrite, Err: &vfs.ShortWrite{Bytes: 4096, Err: syscall.EIO}}).Open("a", vfs.DirectSync)
			must(t, err)
			if n, err := f.WriteAt(bytes.Repeat([]byte("d"), 8192), 0); n != 4096 || !errors.Is(err, syscall.EIO) {
				t.Errorf("%d, %v", n, err)
			}
		}, shapeOf("a"), "4096d 4096o")
	})
}
