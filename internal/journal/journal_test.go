package journal_test

import (
	"bytes"
	"fmt"
	"slices"
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
	return out, found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry is the i-th of some fixed sequence, and its bytes.
func entry(i, n int) (journal.Entry, []byte) {
	e := journal.Entry{Dir: fmt.Sprintf("orders-%d", i%7), TopicID: [16]byte{1, byte(i)}, Base: int64(i / 7), Pos: int64(i) * 100, Bytes: n}
	return e, bytes.Repeat([]byte{byte('a' + i%26)}, n)
}

func add(j *journal.Journal, i, n int) given {
	e, data := entry(i, n)
	copy(j.Add(e), data)
	return given{e, string(data)}
}

func TestRoundsAreGivenAgain(t *testing.T) {
	fsys := vfs.NewMem(1)
	j, err := journal.Open(fsys, journal.Options{Bytes: 16 * journal.Block, MaxRound: 4 * journal.Block})
	must(t, err)
	var want []given
	for round := range 8 {
		j.Begin()
		for i := range 3 {
			want = append(want, add(j, 10*round+i, 1000+i))
		}
		must(t, j.Commit())
		if round == 4 {
			j.Turn()
		}
	}
	got, found := replay(t, fsys)
	if !slices.Equal(got, want) || found.Rounds != 8 || found.Entries != 24 || found.Bytes != 8*3003 || found.Torn != 0 || found.Damaged != nil {
		t.Errorf("replayed %d of %d entries: %+v", len(got), len(want), found)
	}
	must(t, j.Reset())
	must(t, j.Close())
	if got, found := replay(t, fsys); got != nil || found.Damaged != nil {
		t.Errorf("after Reset: %d entries, %+v", len(got), found)
	}
}
