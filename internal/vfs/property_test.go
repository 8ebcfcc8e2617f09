package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"lagoon/internal/vfs"
)

// model knows, without knowing how Mem works, what a power cut may leave: for each name the files it stood for since
// its directory was last synced, for each file the contents it had since it was last synced.
type model struct {
	names map[string][]*modelFile // the last is the present one, the first the synced one; nil = no such name
}

type modelFile struct {
	states [][]byte // the last is the present one, the first the synced one
}

var modelDirs = []string{".", "d"}

func newModel() *model {
	m := &model{names: map[string][]*modelFile{}}
	for _, name := range modelNames() {
		m.names[name] = []*modelFile{nil}
	}
	return m
}

func modelNames() []string { return []string{"a", "b", "d/a", "d/b"} }

func dirOf(name string) string {
	if name[0] == 'd' {
		return "d"
	}
	return "."
}

func (m *model) now(name string) *modelFile { return m.names[name][len(m.names[name])-1] }

func (m *model) set(name string, f *modelFile) { m.names[name] = append(m.names[name], f) }

func (m *model) syncDir(dir string) {
	for name, files := range m.names {
		if dirOf(name) == dir {
			m.names[name] = files[len(files)-1:]
		}
	}
}

func (f *modelFile) now() []byte { return f.states[len(f.states)-1] }

func (f *modelFile) change(fn func(data []byte) []byte) {
	f.states = append(f.states, fn(slices.Clone(f.now())))
}

func (f *modelFile) sync() { f.states = f.states[len(f.states)-1:] }

// syncRange has all states agree, on the blocks of [off, end), with what stands there now; each is at least as long as the range needs.
// With a cut that is not synced it is a sync of all.
func (f *modelFile) syncRange(off, end int) {
	now := f.now()
	for i := 1; i < len(f.states); i++ {
		if len(f.states[i]) < len(f.states[i-1]) {
			f.sync()
			return
		}
	}
	end = min(end, len(now))
	if off >= end {
		return
	}
	const block = 4096
	from, to := off/block*block, min(len(now), (end+block-1)/block*block)
	for i, s := range f.states {
		s = append(slices.Clone(s), make([]byte, max(0, end-len(s)))...)
		copy(s[from:min(to, len(s))], now[from:])
		f.states[i] = s
	}
}

// allows tells why a crash cannot have left data, "" if it can: the size lies among those the file had, and each byte
// is one that stood there, or zero where the file ever ended before.
func (f *modelFile) allows(data []byte) string {
	least, most := len(f.states[0]), 0
	for _, s := range f.states {
		least, most = min(least, len(s)), max(most, len(s))
	}
	if len(data) < least || len(data) > most {
		return fmt.Sprintf("size %d outside %d-%d", len(data), least, most)
	}
	for i, b := range data {
		if !slices.ContainsFunc(f.states, func(s []byte) bool {
			return i < len(s) && s[i] == b || i >= len(s) && b == 0
		}) {
			return fmt.Sprintf("byte %d is %d, which never stood there", i, b)
		}
	}
	return ""
}

// TestCrashProperty: after a crash, acknowledged (synced) ⊆ recovered ⊆ written; keeping nothing gives just what was
// synced, keeping everything, or a kill, just what was written. Several lives, one after the other.
func TestCrashProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem, want := vfs.NewMem(rapid.Uint64().Draw(t, "seed")), newModel()
		if err := mem.MkdirAll("d"); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "lives") {
			live(t, mem, want, rapid.IntRange(0, 25).Draw(t, "steps"))
			if rapid.IntRange(0, 3).Draw(t, "end") == 0 {
				mem = mem.Kill()
				checkNames(t, mem, want, false)
				continue
			}
			opt := vfs.CrashOptions{
				Seed:        rapid.Uint64().Draw(t, "crash seed"),
				KeepPercent: rapid.SampledFrom([]int{vfs.KeepRandom, 0, 50, 100}).Draw(t, "keep"),
				Tear:        rapid.Bool().Draw(t, "tear"),
			}
			next := mem.Crash(opt)
			switch opt.KeepPercent {
			case 0:
				checkNames(t, next, want, true)
			case 100:
				checkNames(t, next, want, false)
			default:
				checkRecovered(t, next, want)
			}
			if left := next.Unsynced(); len(left) != 0 {
				t.Fatalf("after a crash %q are not synced", left)
			}
			mem, want = next, adopt(t, next)
		}
	})
}

// live takes steps on both.
func live(t *rapid.T, mem *vfs.Mem, want *model, steps int) {
	for range steps {
		name := rapid.SampledFrom(modelNames()).Draw(t, "name")
		file := want.now(name)
		switch step := rapid.SampledFrom([]string{"write", "write", "truncate", "sync", "sync range", "rename", "remove", "syncdir"}).Draw(t, "step"); {
		case step == "syncdir":
			dir := rapid.SampledFrom(modelDirs).Draw(t, "dir")
			check(t, mem.SyncDir(dir))
			want.syncDir(dir)
		case file == nil:
			check(t, create(mem, name))
			want.set(name, &modelFile{states: [][]byte{nil}})
		case step == "remove":
			check(t, mem.Remove(name))
			want.set(name, nil)
		case step == "rename":
			to := rapid.SampledFrom(modelNames()).Draw(t, "to")
			check(t, mem.Rename(name, to))
			if to != name && want.now(to) != file { // two names of one file, after half a rename: nothing happens
				want.set(to, file)
				want.set(name, nil)
			}
		default:
			changeFile(t, mem, name, file, step)
		}
	}
}

func changeFile(t *rapid.T, mem *vfs.Mem, name string, file *modelFile, step string) {
	f, err := mem.Open(name, vfs.ReadWrite)
	check(t, err)
	switch step {
	case "write":
		off, n := rapid.IntRange(0, 12000).Draw(t, "off"), rapid.IntRange(1, 9000).Draw(t, "len")
		data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
		_, err := f.WriteAt(data, int64(off))
		check(t, err)
		file.change(func(old []byte) []byte {
			if grow := off + n - len(old); grow > 0 {
				old = append(old, make([]byte, grow)...)
			}
			copy(old[off:], data)
			return old
		})
	case "truncate":
		size := rapid.IntRange(0, 20000).Draw(t, "size")
		check(t, f.Truncate(int64(size)))
		file.change(func(old []byte) []byte { return append(old, make([]byte, max(0, size-len(old)))...)[:size] })
	case "sync":
		check(t, f.SyncData())
		file.sync()
	case "sync range":
		off, n := rapid.IntRange(0, 12000).Draw(t, "off"), rapid.IntRange(1, 9000).Draw(t, "len")
		check(t, f.SyncRange(int64(off), int64(n)))
		file.syncRange(off, off+n)
	}
	check(t, f.Close())
}

// content reads name; nil if there is none.
func content(t *rapid.T, fsys vfs.FS, name string) []byte {
	if _, err := fsys.Stat(name); err != nil {
		if !isNotExist(err) {
			t.Fatal(err)
		}
		return nil
	}
	data, err := vfs.ReadFile(fsys, name, 1<<20)
	check(t, err)
	return append([]byte{}, data...)
}

// checkNames asks for exactly the synced, or the present, state.
func checkNames(t *rapid.T, fsys vfs.FS, want *model, synced bool) {
	for _, name := range modelNames() {
		file := want.now(name)
		if synced {
			file = want.names[name][0]
		}
		got := content(t, fsys, name)
		if (got == nil) != (file == nil) {
			t.Fatalf("%s: there %v, expected %v", name, got != nil, file != nil)
		}
		if file == nil {
			continue
		}
		data := file.now()
		if synced {
			data = file.states[0]
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("%s: %d bytes, expected %d, or other ones", name, len(got), len(data))
		}
	}
}

// checkRecovered asks for a state between the synced and the present one.
func checkRecovered(t *rapid.T, fsys vfs.FS, want *model) {
	for _, name := range modelNames() {
		got := content(t, fsys, name)
		var reasons []string
		allowed := slices.ContainsFunc(want.names[name], func(f *modelFile) bool {
			if got == nil || f == nil {
				return got == nil && f == nil
			}
			reason := f.allows(got)
			reasons = append(reasons, reason)
			return reason == ""
		})
		if !allowed {
			t.Fatalf("%s, there %v, is none of its %d candidates: %q", name, got != nil, len(want.names[name]), reasons)
		}
	}
}

// adopt makes the recovered state the synced one. Half a rename between directories may have left one file under two
// names; the model keeps that by asking the file system.
func adopt(t *rapid.T, mem *vfs.Mem) *model {
	next := newModel()
	for _, name := range modelNames() {
		data := content(t, mem, name)
		if data == nil {
			continue
		}
		file := &modelFile{states: [][]byte{data}}
		for _, other := range modelNames() {
			if f := next.now(other); f != nil && vfs.SameMemFile(mem, name, other) {
				file = f
			}
		}
		next.names[name] = []*modelFile{file}
	}
	return next
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
