package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"lagoon/internal/vfs"
)

func testDirect(t *testing.T, fsys vfs.FS) {
	data := pattern(20000) // ends inside a block and inside a sector
	write(t, fsys, "a", data)
	_, err := fsys.Open("no", vfs.Direct)
	wantPathError(t, fsys, "no", err, fs.ErrNotExist)
	f, err := fsys.Open("a", vfs.Direct)
	if errors.Is(err, vfs.ErrDirectUnsupported) {
		return // a file system may lack it, and says so; that the disk has it is required by cachectl's tests
	}
	must(t, err)
	defer f.Close()
	align, err := vfs.DirectAlign(f)
	must(t, err)
	if align.Mem <= 0 || align.Off <= 0 || align.Mem > 4096 || align.Off > 4096 {
		t.Fatalf("DirectAlign = %+v", align)
	}
	buf := Aligned(32768, 4096)
	n, err := f.ReadAt(buf, 0)
	if n != len(data) || err != io.EOF || !bytes.Equal(buf[:n], data) {
		t.Errorf("read across the end = %d, %v; equal %v", n, err, bytes.Equal(buf[:n], data))
	}
	n, err = f.ReadAt(buf[:8192], 4096)
	if n != 8192 || err != nil || !bytes.Equal(buf[:n], data[4096:4096+8192]) {
		t.Errorf("read inside = %d, %v", n, err)
	}
	n, err = f.ReadAt(buf[:4096], 1<<20)
	if n != 0 || err != io.EOF {
		t.Errorf("read beyond the end = %d, %v", n, err)
	}
	_, err = f.ReadAt(buf[:4096], 1)
	wantPathError(t, fsys, "a", err, syscall.EINVAL)
	_, err = f.ReadAt(buf[:100], 0)
	wantPathError(t, fsys, "a", err, syscall.EINVAL)
	_, err = f.WriteAt(buf[:4096], 0)
	wantPathError(t, fsys, "a", err, nil)
}

func testDirectSync(t *testing.T, fsys vfs.FS) {
	data := pattern(5 * 4096)
	write(t, fsys, "a", data)
	_, err := fsys.Open("no", vfs.DirectSync)
	wantPathError(t, fsys, "no", err, fs.ErrNotExist)
	f, err := fsys.Open("a", vfs.DirectSync)
	if errors.Is(err, vfs.ErrDirectUnsupported) {
		wantPathError(t, fsys, "a", err, nil)
		return
	}
	must(t, err)
	defer f.Close()
	if _, err := vfs.DirectAlign(f); err != nil {
		t.Fatal(err)
	}
	buf := Aligned(2*4096, 4096)
	copy(buf, bytes.Repeat([]byte("directly"), 1024))
	for _, pos := range []int64{4096, int64(len(data))} { // inside, and behind the end
		if n, err := f.WriteAt(buf, pos); n != len(buf) || err != nil {
			t.Fatalf("WriteAt %d = %d, %v", pos, n, err)
		}
	}
	want := slices.Concat(data[:4096], buf, data[3*4096:], buf)
	if got := read(t, fsys, "a"); !bytes.Equal(got, want) {
		t.Error("other bytes through the cache")
	}
	got := Aligned(len(want), 4096)
	if n, err := f.ReadAt(got, 0); n != len(want) || err != nil || !bytes.Equal(got, want) {
		t.Errorf("read = %d, %v; equal %v", n, err, bytes.Equal(got, want))
	}
	for name, refused := range map[string]func() (int, error){
		"offset": func() (int, error) { return f.WriteAt(buf[:4096], 100) },
		"length": func() (int, error) { return f.WriteAt(buf[:100], 0) },
		"memory": func() (int, error) { return f.WriteAt(buf[1:4097], 0) },
		"below":  func() (int, error) { return f.WriteAt(buf, -4096) },
	} {
		n, err := refused()
		if n != 0 {
			t.Errorf("%s: wrote %d bytes", name, n)
		}
		wantPathError(t, fsys, "a", err, syscall.EINVAL)
	}
	if n, err := f.WriteAt(buf, 0); n != len(buf) || err != nil {
		t.Errorf("after a refused write: %d, %v", n, err)
	}
	must(t, f.SyncData())
}

// Aligned returns n bytes whose address is a multiple of align.
func Aligned(n, align int) []byte {
	buf := make([]byte, n+align)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % uintptr(align)
	return buf[skip:][:n:n]
}

// pattern is n bytes without period below 64 KiB and without zeros.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + (i*7+i/251)%255)
	}
	return p
}

func write(t *testing.T, fsys vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	n, err := f.WriteAt(data, 0)
	if n != len(data) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	must(t, f.SyncData())
	must(t, f.Close())
}

func read(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	data, err := vfs.ReadFile(fsys, name, 1<<20)
	must(t, err)
	return data
}

func contents(t *testing.T, f vfs.File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	buf := make([]byte, size)
	n, err := f.ReadAt(buf, 0)
	if n != len(buf) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt = %d, %v; want %d bytes", n, err, size)
	}
	return buf
}

func names(t *testing.T, fsys vfs.FS, dir string) []string {
	t.Helper()
	list, err := fsys.List(dir)
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// wantPathError asks for an error of kind want (any if nil) that names the full path.
func wantPathError(t *testing.T, fsys vfs.FS, name string, err, want error) {
	t.Helper()
	wantError(t, err, want)
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		t.Errorf("error %v is no *fs.PathError", err)
	} else if full := fsys.Root() + "/" + name; pe.Path != full || pe.Op == "" {
		t.Errorf("error %v does not name %s", err, full)
	}
}
