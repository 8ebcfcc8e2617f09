package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// given is what Replay gave for one entry.
type given struct {
	e    journal.Entry
	data string
}

func replay(t *testing.T, fsys vfs.FS) (out []given, found journal.Replayed) {
	t.Helper()
	found, err := journal.Replay(fsys, func(e journal.Entry, data []byte) error {
		out = append(out, given{e, string(data)})
		return nil
	})
	must(t, err)
	if int64(len(out)) != found.Entries || found.Entries < found.Rounds {
		t.Errorf("%d entries given, %+v", len(out), found)
	}
	return out, found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry is the i-th of some fixed sequence, and its bytes.
func entry(i, n int) (journal.Entry, []byte) {
	e := journal.Entry{Dir: fmt.Sprintf("orders-%d", i%7), TopicID: [16]byte{1, byte(i)}, Base: int64(i / 7), Pos: int64(i) * 100, Next: int64(i/7 + i%3), Bytes: n}
	return e, bytes.Repeat([]byte{byte('a' + i%26)}, n)
}

func add(j *journal.Journal, i, n int) given {
	e, data := entry(i, n)
	copy(j.Add(e), data)
	return given{e, string(data)}
}

// round commits one entry of n bytes.
func round(t *testing.T, j *journal.Journal, i, n int) given {
	t.Helper()
	j.Begin()
	g := add(j, i, n)
	must(t, j.Commit())
	return g
}

func open(t *testing.T, fsys vfs.FS, opt journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(fsys, opt)
	must(t, err)
	t.Cleanup(func() { must(t, j.Close()) })
	return j
}

var small = journal.Options{Bytes: 16 * journal.Block, MaxRound: 4 * journal.Block}

func TestRoundsAreGivenAgain(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	var want []given
	for round := range 8 {
		j.Begin()
		for i := range 3 {
			want = append(want, add(j, 10*round+i, 1000+i))
		}
		must(t, j.Commit())
		if round == 4 {
			j.Turn()
			j.Turn() // once is enough
		}
	}
	got, found := replay(t, fsys)
	if !slices.Equal(got, want) || found.Rounds != 8 || found.Entries != 24 || found.Bytes != 8*3003 || found.Torn != 0 || found.Damaged != nil || found.Generation == 0 {
		t.Errorf("replayed %d of %d entries: %+v", len(got), len(want), found)
	}
	must(t, j.Reset())
	if got, found := replay(t, fsys); got != nil || found.Damaged != nil {
		t.Errorf("after Reset: %d entries, %+v", len(got), found)
	}
	want = []given{round(t, j, 99, 10)}
	if got, _ := replay(t, fsys); !slices.Equal(got, want) {
		t.Errorf("after Reset and a round: %d entries", len(got))
	}
	must(t, j.Close())
	open(t, fsys, small)
	if got, found := replay(t, fsys); got != nil || found.Damaged != nil {
		t.Errorf("after Open: %d entries, %+v", len(got), found)
	}
}

func TestNoJournal(t *testing.T) {
	if got, found := replay(t, vfs.NewMem(1)); got != nil || found.Rounds != 0 || found.Generation != 0 || found.Damaged != nil {
		t.Errorf("%+v", found)
	}
}

// A file holds what Left says, in rounds of at most MaxRound, to the last byte.
func TestRoom(t *testing.T) {
	fsys := vfs.NewMem(1)
	opt := journal.Options{Bytes: 10 * journal.Block, MaxRound: 4 * journal.Block}
	j := open(t, fsys, opt)
	if left := j.Left(); left != 9*journal.Block {
		t.Errorf("%d bytes left in an empty file", left)
	}
	const header, entryHeader, longest = 40, 45, 255
	var want []given
	for i, blocks := range []int{4, 4, 1} { // the third is what the file has left
		j.Begin()
		if room := j.Room(); room != blocks*journal.Block-header-entryHeader-longest {
			t.Fatalf("round %d: room for %d bytes", i, room)
		}
		e, _ := entry(i, j.Room())
		e.Dir = strings.Repeat("d", longest)
		data := strings.Repeat("x", e.Bytes)
		copy(j.Add(e), data)
		want = append(want, given{e, data})
		if j.Room() != 0 {
			t.Errorf("round %d: room for %d bytes more", i, j.Room())
		}
		must(t, j.Commit())
	}
	j.Begin()
	if j.Left() != 0 || j.Room() != 0 {
		t.Errorf("full file: %d bytes left, room for %d", j.Left(), j.Room())
	}
	panics(t, "an entry in a full file", func() { add(j, 1, 1) })
	j.Turn()
	j.Begin()
	panics(t, "an entry beyond MaxRound", func() { add(j, 1, 4*journal.Block) })
	want = append(want, add(j, 3, j.Room()))
	must(t, j.Commit())
	if got, found := replay(t, fsys); !slices.Equal(got, want) || found.Damaged != nil {
		t.Errorf("replayed %d of %d entries: %+v", len(got), len(want), found)
	}
}

func panics(t *testing.T, what string, fn func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	fn()
}

func TestAddRefusesWhatIsNoRange(t *testing.T) {
	j := open(t, vfs.NewMem(1), small)
	j.Begin()
	good, _ := entry(1, 10)
	for what, change := range map[string]func(e *journal.Entry){
		"no directory":       func(e *journal.Entry) { e.Dir = "" },
		"another directory":  func(e *journal.Entry) { e.Dir = "../orders-1" },
		"the one above":      func(e *journal.Entry) { e.Dir = ".." },
		"the root":           func(e *journal.Entry) { e.Dir = "." },
		"a NUL":              func(e *journal.Entry) { e.Dir = "a\x00b" },
		"a long directory":   func(e *journal.Entry) { e.Dir = strings.Repeat("d", 256) },
		"no bytes":           func(e *journal.Entry) { e.Bytes = 0 },
		"fewer than none":    func(e *journal.Entry) { e.Bytes = -1 },
		"a position below 0": func(e *journal.Entry) { e.Pos = -1 },
		"a base below 0":     func(e *journal.Entry) { e.Base = -1 },
		"an end beyond":      func(e *journal.Entry) { e.Pos = math.MaxInt64 - 5 },
	} {
		e := good
		change(&e)
		panics(t, what, func() { j.Add(e) })
	}
	if b := j.Add(good); len(b) != 10 || cap(b) != 10 {
		t.Errorf("%d bytes, capacity %d", len(b), cap(b))
	}
}

// A round that was not committed is dropped, and one without entries is nothing.
func TestBeginDrops(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	left := j.Left()
	j.Begin()
	must(t, j.Commit())
	add(j, 1, 100)
	j.Begin()
	must(t, j.Commit())
	if j.Left() != left {
		t.Errorf("%d of %d bytes left", j.Left(), left)
	}
	want := []given{round(t, j, 2, 100)}
	must(t, j.Commit()) // once more: nothing
	add(j, 3, 100)
	j.Turn()
	must(t, j.Commit())
	if got, _ := replay(t, fsys); !slices.Equal(got, want) {
		t.Errorf("%d entries", len(got))
	}
}

func TestOptions(t *testing.T) {
	for _, opt := range []journal.Options{
		{}, {Bytes: 1 << 20}, {Bytes: 1 << 20, MaxRound: 100}, {Bytes: 1 << 20, MaxRound: 4096 + 512}, {Bytes: 1 << 30, MaxRound: 16<<20 + 4096},
		{Bytes: 1<<20 + 1, MaxRound: 4096}, {Bytes: 2 << 20, MaxRound: 1 << 20}, {Bytes: -4096, MaxRound: 4096},
	} {
		if _, err := journal.Open(vfs.NewMem(1), opt); !errors.Is(err, journal.ErrOptions) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	must(t, journal.Options{Bytes: 2<<20 + 4096, MaxRound: 1 << 20}.Validate())
}

func TestOpenMakesFiles(t *testing.T) {
	fsys := vfs.NewMem(1)
	for _, opt := range []journal.Options{small, {Bytes: 20 * journal.Block, MaxRound: journal.Block}, small} {
		for _, name := range journal.Names { // what a crash may have left
			if f, err := fsys.Create(name + ".tmp"); err == nil {
				must(t, f.Close())
			}
		}
		j := open(t, fsys, opt)
		list, err := fsys.List(".")
		must(t, err)
		if len(list) != 2 || list[0].Name != journal.Names[0] || list[1].Name != journal.Names[1] || list[0].Size != opt.Bytes || list[1].Size != opt.Bytes {
			t.Errorf("%+v: %+v", opt, list)
		}
		if left := fsys.Unsynced(); left != nil {
			t.Errorf("%+v: unsynced %v", opt, left)
		}
		round(t, j, 1, 100)
	}
}

// Whatever is in the place of a file: what has no header is made anew, in full.
func TestOpenMakesAnewWhatHasNoHeader(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	round(t, j, 1, 100)
	edit(t, fsys, 0, func(b []byte) { b[20] ^= 1 })
	open(t, fsys, small)
	if b := contents(t, fsys, 0); bytes.Count(b[journal.Block:], []byte{0}) != len(b)-journal.Block {
		t.Error("the file holds old bytes")
	}
	if got, found := replay(t, fsys); got != nil || found.Damaged != nil {
		t.Errorf("%d entries, %+v", len(got), found)
	}
}

func TestNoSpace(t *testing.T) {
	fsys := vfs.NewMem(1)
	fsys.SetCapacity(20 * journal.Block) // one file
	_, err := journal.Open(fsys, small)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "two files of 65536 bytes; free some, or configure a smaller one") {
		t.Fatal(err)
	}
	list, err := fsys.List(".")
	must(t, err)
	if len(list) != 1 || list[0].Name != journal.Names[0] {
		t.Errorf("left: %+v", list)
	}
	fsys.SetCapacity(0)
	open(t, fsys, small)
}

func TestRemove(t *testing.T) {
	fsys := vfs.NewMem(1)
	must(t, journal.Remove(fsys))
	round(t, open(t, fsys, small), 1, 100)
	must(t, journal.Remove(fsys))
	if list, err := fsys.List("."); err != nil || len(list) > 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	if left := fsys.Unsynced(); left != nil {
		t.Errorf("unsynced %v", left)
	}
}

func TestClosed(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	round(t, j, 1, 100)
	must(t, j.Close())
	must(t, j.Close())
	j.Begin()
	if j.Room() != 0 {
		t.Errorf("room for %d bytes", j.Room())
	}
	panics(t, "an entry", func() { add(j, 1, 1) })
	if err := j.Commit(); !errors.Is(err, journal.ErrFailed) || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if err := j.Reset(); !errors.Is(err, journal.ErrFailed) {
		t.Errorf("Reset: %v", err)
	}
}

func TestApplyEndsReplay(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	for i := range 3 {
		round(t, j, i, 100)
	}
	full, n := errors.New("full"), 0
	_, err := journal.Replay(fsys, func(journal.Entry, []byte) error {
		if n++; n == 2 {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) || n != 2 || !strings.Contains(err.Error(), "round 2: orders-1, segment 0 at byte 100") {
		t.Errorf("%d entries, %v", n, err)
	}
}

func contents(t testing.TB, fsys vfs.FS, file int) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fsys, journal.Names[file], 1<<30)
	must(t, err)
	return b
}

// edit changes bytes of a file.
func edit(t testing.TB, fsys vfs.FS, file int, change func(b []byte)) {
	t.Helper()
	b := contents(t, fsys, file)
	change(b)
	f, err := fsys.Open(journal.Names[file], vfs.ReadWrite)
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, errors.Join(err, f.SyncData(), f.Close()))
}
