package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lagoon/internal/vfs"
)

// Test runs the contract. newFS returns a new, empty, writable FS each time; it is called once per subtest.
func Test(t *testing.T, newFS func(t *testing.T) vfs.FS) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, fsys vfs.FS)
	}{
		{"Create", testCreate},
		{"Open", testOpen},
		{"Names", testNames},
		{"ReadWrite", testReadWrite},
		{"SyncRange", testSyncRange},
		{"Disjoint", testDisjoint},
		{"Truncate", testTruncate},
		{"Allocate", testAllocate},
		{"Closed", testClosed},
		{"Direct", testDirect},
		{"DirectSync", testDirectSync},
		{"Rename", testRename},
		{"RenameDirectory", testRenameDirectory},
		{"Remove", testRemove},
		{"Unlinked", testUnlinked},
		{"List", testList},
		{"MkdirAll", testMkdirAll},
		{"SyncDir", testSyncDir},
		{"Lock", testLock},
		{"Usage", testUsage},
		{"ReadFile", testReadFile},
		{"WriteFileAtomic", testWriteFileAtomic},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFS(t)) })
	}
}

func testCreate(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	if f.Name() != "a" {
		t.Errorf("Name = %q", f.Name())
	}
	if size, err := f.Size(); size != 0 || err != nil {
		t.Errorf("Size of a new file = %d, %v", size, err)
	}
	_, err = f.WriteAt([]byte("x"), 0)
	must(t, err)
	must(t, f.Close())

	_, err = fsys.Create("a")
	wantPathError(t, fsys, "a", err, fs.ErrExist)
	_, err = fsys.Create("no/a")
	wantPathError(t, fsys, "no/a", err, fs.ErrNotExist)
	_, err = fsys.Create("a/b")
	wantPathError(t, fsys, "a/b", err, syscall.ENOTDIR)
	must(t, fsys.MkdirAll("d"))
	_, err = fsys.Create("d")
	wantPathError(t, fsys, "d", err, fs.ErrExist)
	_, err = fsys.Create(strings.Repeat("n", 256))
	wantError(t, err, syscall.ENAMETOOLONG)
}

func testOpen(t *testing.T, fsys vfs.FS) {
	_, err := fsys.Open("a", vfs.ReadOnly)
	wantPathError(t, fsys, "a", err, fs.ErrNotExist)
	_, err = fsys.Open("a", vfs.ReadWrite)
	wantPathError(t, fsys, "a", err, fs.ErrNotExist)
	must(t, fsys.MkdirAll("d"))
	_, err = fsys.Open("d", vfs.ReadOnly)
	wantPathError(t, fsys, "d", err, syscall.EISDIR)
	_, err = fsys.Open("d", vfs.ReadWrite)
	wantPathError(t, fsys, "d", err, syscall.EISDIR)

	write(t, fsys, "d/a", []byte("hello"))
	f, err := fsys.Open("./d//a", vfs.ReadOnly)
	must(t, err)
	defer f.Close()
	if got := contents(t, f); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
	_, err = f.WriteAt([]byte("x"), 0)
	wantPathError(t, fsys, "d/a", err, nil)
	wantPathError(t, fsys, "d/a", f.Truncate(0), nil)

	w, err := fsys.Open("d/a", vfs.ReadWrite)
	must(t, err)
	defer w.Close()
	_, err = w.WriteAt([]byte("J"), 0)
	must(t, err)
	if got := contents(t, f); string(got) != "Jello" {
		t.Errorf("the other handle read %q", got)
	}
	_, err = fsys.Open("d/a", vfs.Mode(9))
	wantError(t, err, fs.ErrInvalid)
}

func testNames(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d"))
	write(t, fsys, "f", nil)
	for _, name := range []string{"", "/f", "..", "../f", "d/../f", "d/..", "f\x00", "/"} {
		calls := everyCall(fsys, name)
		for op, err := range calls {
			if !errors.Is(err, vfs.ErrEscape) {
				t.Errorf("%s %q: %v, want ErrEscape", op, name, err)
			}
		}
	}
	for _, op := range []string{"create", "open", "remove", "rename from", "rename to", "lock"} {
		if err := everyCall(fsys, ".")[op]; !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s of the root: %v, want ErrInvalid", op, err)
		}
	}
	write(t, fsys, "..f", nil)
	write(t, fsys, "d/...", nil)
}

// everyCall makes every call that takes a name.
func everyCall(fsys vfs.FS, name string) map[string]error {
	calls := map[string]error{}
	_, calls["create"] = fsys.Create(name)
	_, calls["open"] = fsys.Open(name, vfs.ReadOnly)
	calls["rename from"] = fsys.Rename(name, "x")
	calls["rename to"] = fsys.Rename("f", name)
	calls["remove"] = fsys.Remove(name)
	_, calls["list"] = fsys.List(name)
	_, calls["stat"] = fsys.Stat(name)
	calls["mkdir"] = fsys.MkdirAll(name)
	calls["sync"] = fsys.SyncDir(name)
	_, calls["lock"] = fsys.Lock(name)
	return calls
}

func testReadWrite(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	data := pattern(3*4096 + 100)
	n, err := f.WriteAt(data, 5000) // a hole before, ends inside a block
	if n != len(data) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	want := append(make([]byte, 5000), data...)
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("hole and data read back wrong")
	}
	copy(want[4000:], "overwritten")
	_, err = f.WriteAt([]byte("overwritten"), 4000)
	must(t, err)
	must(t, f.SyncData())
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("overwritten block reads back wrong")
	}

	buf := make([]byte, 10)
	size := int64(len(want))
	if n, err := f.ReadAt(buf, size-4); n != 4 || err != io.EOF || !bytes.Equal(buf[:4], want[size-4:]) {
		t.Errorf("read across the end = %d, %v", n, err)
	}
	if n, err := f.ReadAt(buf, size+100); n != 0 || err != io.EOF {
		t.Errorf("read beyond the end = %d, %v", n, err)
	}
	if n, err := f.ReadAt(nil, 0); n != 0 || err != nil {
		t.Errorf("empty read = %d, %v", n, err)
	}
	if n, err := f.WriteAt(nil, 1<<20); n != 0 || err != nil {
		t.Errorf("empty write = %d, %v", n, err)
	}
	if got, err := f.Size(); got != size || err != nil {
		t.Errorf("Size = %d, %v; want %d", got, err, size)
	}
	_, err = f.ReadAt(buf, -1)
	wantPathError(t, fsys, "a", err, nil)
	_, err = f.WriteAt(buf, -1)
	wantPathError(t, fsys, "a", err, nil)
	_, err = f.WriteAt(buf, 1<<62)
	wantError(t, err, syscall.EFBIG)
}

// Any range may be synced, in any mode, also where the file has nothing.
func testSyncRange(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	must(t, f.SyncRange(0, 0))
	must(t, f.SyncRange(0, 100))
	want := pattern(3*4096 + 100)
	_, err = f.WriteAt(want, 0)
	must(t, err)
	ranges := [][2]int64{{0, 4096}, {4096, 1}, {5000, 6000}, {1, 0}, {3 * 4096, 100}, {3 * 4096, 1 << 30}, {1 << 40, 5}}
	reader, err := fsys.Open("a", vfs.ReadOnly)
	must(t, err)
	defer reader.Close()
	for _, r := range ranges {
		must(t, f.SyncRange(r[0], r[1]))
		must(t, reader.SyncRange(r[0], r[1]))
	}
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("reads back wrong after syncs of ranges")
	}
	for _, r := range [][2]int64{{-1, 5}, {0, -1}, {1 << 62, 1 << 62}} {
		wantPathError(t, fsys, "a", f.SyncRange(r[0], r[1]), syscall.EINVAL)
	}
	must(t, f.SyncData()) // a range that makes no sense is no failure of the disk
}

func testDisjoint(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	const writers, chunk = 8, 3000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte('a' + i)}, chunk)
			for range 10 {
				if _, err := f.WriteAt(data, int64(i*chunk)); err != nil {
					t.Error(err)
				}
				got := make([]byte, chunk)
				if _, err := f.ReadAt(got, int64(i*chunk)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("writer %d read other bytes (%v)", i, err)
				}
				if err := f.SyncData(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func testTruncate(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	data := pattern(10000)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Truncate(5000))
	must(t, f.Truncate(9000))
	want := append(slices.Clone(data[:5000]), make([]byte, 4000)...)
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("cut and grown file does not read as data and zeros")
	}
	wantPathError(t, fsys, "a", f.Truncate(-1), syscall.EINVAL)
}

func testAllocate(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("abc"), 0)
	must(t, err)
	if err := f.Allocate(0, 1<<20); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	if got := contents(t, f); string(got) != "abc" {
		t.Errorf("Allocate changed the file to %d bytes", len(got))
	}
	_, err = f.WriteAt([]byte("def"), 3)
	must(t, err)
	if got := contents(t, f); string(got) != "abcdef" {
		t.Errorf("read %q", got)
	}
	wantPathError(t, fsys, "a", f.Allocate(-1, 10), nil)
}

func testClosed(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "a", pattern(10000))
	modes := []vfs.Mode{vfs.ReadOnly, vfs.ReadWrite, vfs.Direct, vfs.DirectSync}
	for _, mode := range modes {
		f, err := fsys.Open("a", mode)
		if errors.Is(err, vfs.ErrDirectUnsupported) {
			continue
		}
		must(t, err)
		must(t, f.Close())
		_, err = f.ReadAt(make([]byte, 4096), 0)
		wantPathError(t, fsys, "a", err, fs.ErrClosed)
		_, err = f.WriteAt([]byte("x"), 0)
		wantPathError(t, fsys, "a", err, fs.ErrClosed)
		_, err = f.Size()
		wantPathError(t, fsys, "a", err, fs.ErrClosed)
		wantPathError(t, fsys, "a", f.Truncate(0), fs.ErrClosed)
		wantPathError(t, fsys, "a", f.Allocate(0, 1), fs.ErrClosed)
		wantPathError(t, fsys, "a", f.SyncData(), fs.ErrClosed)
		wantPathError(t, fsys, "a", f.SyncRange(0, 0), fs.ErrClosed)
		wantPathError(t, fsys, "a", f.SyncRange(0, 10), fs.ErrClosed)
		wantPathError(t, fsys, "a", f.Close(), fs.ErrClosed)
		if _, ok := f.Fd(); ok {
			t.Error("a closed file has a descriptor")
		}
	}
}

func testRename(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d"))
	write(t, fsys, "a", []byte("new"))
	write(t, fsys, "d/b", []byte("old"))
	old, err := fsys.Open("d/b", vfs.ReadOnly)
	must(t, err)
	defer old.Close()

	must(t, fsys.Rename("a", "d/b"))
	if got := read(t, fsys, "d/b"); string(got) != "new" {
		t.Errorf("d/b holds %q", got)
	}
	if got := contents(t, old); string(got) != "old" {
		t.Errorf("the open handle of the replaced file reads %q", got)
	}
	_, err = fsys.Stat("a")
	wantPathError(t, fsys, "a", err, fs.ErrNotExist)

	must(t, fsys.Rename("d/b", "d/b"))
	if got := read(t, fsys, "d/b"); string(got) != "new" {
		t.Errorf("renaming onto itself left %q", got)
	}
	wantError(t, fsys.Rename("a", "c"), fs.ErrNotExist)
	wantError(t, fsys.Rename("d/b", "no/b"), fs.ErrNotExist)
	must(t, fsys.MkdirAll("e"))
	wantError(t, fsys.Rename("d/b", "e"), syscall.EISDIR)
}

func testRenameDirectory(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d/sub"))
	must(t, fsys.MkdirAll("full"))
	must(t, fsys.MkdirAll("empty"))
	write(t, fsys, "full/x", nil)
	write(t, fsys, "d/sub/a", []byte("abc"))
	wantError(t, fsys.Rename("d", "full"), fs.ErrExist) // ENOTEMPTY counts as it
	wantError(t, fsys.Rename("d", "full/x"), syscall.ENOTDIR)
	wantError(t, fsys.Rename("d", "d/sub/d"), syscall.EINVAL)
	must(t, fsys.Rename("d", "empty"))
	if got := read(t, fsys, "empty/sub/a"); string(got) != "abc" {
		t.Errorf("file in the renamed directory holds %q", got)
	}
	if got := names(t, fsys, "."); !slices.Equal(got, []string{"empty", "full"}) {
		t.Errorf("root holds %q", got)
	}
}

func testRemove(t *testing.T, fsys vfs.FS) {
	wantPathError(t, fsys, "a", fsys.Remove("a"), fs.ErrNotExist)
	must(t, fsys.MkdirAll("d"))
	write(t, fsys, "d/a", nil)
	wantPathError(t, fsys, "d", fsys.Remove("d"), fs.ErrExist)
	must(t, fsys.Remove("d/a"))
	must(t, fsys.Remove("d"))
	if got := names(t, fsys, "."); len(got) != 0 {
		t.Errorf("root still holds %q", got)
	}
}

func testUnlinked(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("a")
	must(t, err)
	must(t, fsys.Remove("a"))
	_, err = f.WriteAt([]byte("alive"), 0)
	must(t, err)
	write(t, fsys, "a", []byte("successor"))
	if got := contents(t, f); string(got) != "alive" {
		t.Errorf("unlinked file reads %q", got)
	}
	must(t, f.SyncData())
	must(t, f.Close())
}

func testList(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d/z"))
	write(t, fsys, "d/b", []byte("12345"))
	write(t, fsys, "d/a", nil)
	list, err := fsys.List("d")
	must(t, err)
	if len(list) != 3 {
		t.Fatalf("List = %v", list)
	}
	for i, want := range []vfs.Entry{{Name: "a", Regular: true}, {Name: "b", Size: 5, Regular: true}, {Name: "z", Dir: true}} {
		got := list[i]
		if got.ModTime.IsZero() {
			t.Errorf("%s has no modification time", got.Name)
		}
		stat, err := fsys.Stat(path.Join("d", got.Name))
		must(t, err)
		if stat != got {
			t.Errorf("Stat = %+v, List = %+v", stat, got)
		}
		got.ModTime = want.ModTime
		if got != want {
			t.Errorf("entry %d = %+v, want %+v", i, got, want)
		}
	}
	if got := names(t, fsys, "."); !slices.Equal(got, []string{"d"}) {
		t.Errorf("root = %q", got)
	}
	if root, err := fsys.Stat("."); err != nil || !root.Dir || root.Name != "." {
		t.Errorf("Stat of the root = %+v, %v", root, err)
	}
	_, err = fsys.List("no")
	wantPathError(t, fsys, "no", err, fs.ErrNotExist)
	_, err = fsys.List("d/a")
	wantPathError(t, fsys, "d/a", err, syscall.ENOTDIR)
	_, err = fsys.Stat("d/no")
	wantPathError(t, fsys, "d/no", err, fs.ErrNotExist)
}

func testMkdirAll(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("."))
	must(t, fsys.MkdirAll("a/b/c"))
	must(t, fsys.MkdirAll("a/b/c"))
	must(t, fsys.MkdirAll("a/b/d/"))
	if got := names(t, fsys, "a/b"); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("a/b holds %q", got)
	}
	write(t, fsys, "a/f", nil)
	wantError(t, fsys.MkdirAll("a/f"), syscall.ENOTDIR)
	wantError(t, fsys.MkdirAll("a/f/g"), syscall.ENOTDIR)
}

func testSyncDir(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d"))
	write(t, fsys, "d/a", nil)
	must(t, fsys.SyncDir("d"))
	must(t, fsys.SyncDir("."))
	wantPathError(t, fsys, "no", fsys.SyncDir("no"), fs.ErrNotExist)
	wantPathError(t, fsys, "d/a", fsys.SyncDir("d/a"), syscall.ENOTDIR)
}

func testLock(t *testing.T, fsys vfs.FS) {
	lock, err := fsys.Lock(".lock")
	must(t, err)
	_, err = fsys.Lock(".lock")
	wantPathError(t, fsys, ".lock", err, vfs.ErrLocked)
	other, err := fsys.Lock("other")
	must(t, err)
	must(t, other.Close())
	must(t, lock.Close())
	if err := lock.Close(); err == nil {
		t.Error("a lock was released twice")
	}
	lock, err = fsys.Lock(".lock")
	must(t, err)
	must(t, lock.Close())
	must(t, fsys.MkdirAll("d"))
	_, err = fsys.Lock("d")
	wantPathError(t, fsys, "d", err, syscall.EISDIR)
}

func testUsage(t *testing.T, fsys vfs.FS) {
	u, err := fsys.Usage()
	must(t, err)
	if u.TotalBytes <= 0 || u.FreeBytes < 0 || u.FreeBytes > u.TotalBytes || u.FreeInodes > u.TotalInodes {
		t.Errorf("Usage = %+v", u)
	}
}

func testReadFile(t *testing.T, fsys vfs.FS) {
	data := pattern(10000)
	write(t, fsys, "a", data)
	got, err := vfs.ReadFile(fsys, "a", 10000)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("ReadFile differs")
	}
	_, err = vfs.ReadFile(fsys, "a", 9999)
	wantError(t, err, vfs.ErrTooLarge)
	_, err = vfs.ReadFile(fsys, "b", 10)
	wantPathError(t, fsys, "b", err, fs.ErrNotExist)
}

func testWriteFileAtomic(t *testing.T, fsys vfs.FS) {
	must(t, fsys.MkdirAll("d"))
	write(t, fsys, "d/a.tmp", []byte("a leftover that is longer than the file"))
	for _, data := range []string{"first", "second, longer", ""} {
		must(t, vfs.WriteFileAtomic(fsys, "d/a", []byte(data)))
		if got := read(t, fsys, "d/a"); string(got) != data {
			t.Errorf("holds %q, want %q", got, data)
		}
	}
	if got := names(t, fsys, "d"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("directory holds %q", got)
	}
	wantError(t, vfs.WriteFileAtomic(fsys, "no/a", nil), fs.ErrNotExist)
	wantError(t, vfs.WriteFileAtomic(fsys, "../a", nil), vfs.ErrEscape)
	must(t, fsys.MkdirAll("d/sub"))
	wantError(t, vfs.WriteFileAtomic(fsys, "d/sub", nil), syscall.EISDIR)
	if _, err := fsys.Stat("d/sub.tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed write left its temporary file (%v)", err)
	}
}
