package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// full makes a journal whose rounds 1 to 4 are in file 0 and 5 to 7 in file 1, of one block each but for rounds 3 and 6, of two.
func full(t testing.TB) (fsys *vfs.Mem, rounds []given) {
	t.Helper()
	fsys = vfs.NewMem(1)
	keys := uint64(100)
	j, err := journal.OpenWithKeys(fsys, small, func() uint64 { keys++; return keys })
	must(t, err)
	for i := 1; i <= 7; i++ {
		n := 100
		if i%3 == 0 {
			n = 5000
		}
		j.Begin()
		rounds = append(rounds, add(j, i, n))
		must(t, j.Commit())
		if i == 4 {
			j.Turn()
		}
	}
	must(t, j.Close())
	return fsys, rounds
}

// without leaves out rounds by number.
func without(rounds []given, numbers ...int) (out []given) {
	for i, r := range rounds {
		if !slices.Contains(numbers, i+1) {
			out = append(out, r)
		}
	}
	return out
}

func TestDamage(t *testing.T) {
	const b = journal.Block
	flip := func(file int, pos int64) func(t *testing.T, fsys *vfs.Mem) {
		return func(t *testing.T, fsys *vfs.Mem) { edit(t, fsys, file, func(b []byte) { b[pos] ^= 1 }) }
	}
	remove := func(file int) func(t *testing.T, fsys *vfs.Mem) {
		return func(t *testing.T, fsys *vfs.Mem) { must(t, fsys.Remove(journal.Names[file])) }
	}
	path0, path1 := "mem:/commit-journal.0", "mem:/commit-journal.1"
	for _, c := range []struct {
		name   string
		do     func(t *testing.T, fsys *vfs.Mem)
		lost   []int
		torn   int64
		damage []journal.DamageError
	}{
		{"nothing", func(*testing.T, *vfs.Mem) {}, nil, 0, nil},
		{"a byte of an entry", flip(0, 2*b+150), []int{2}, 0, []journal.DamageError{{Path: path0, Pos: 2 * b, End: 3 * b, First: 2, Next: 3}}},
		{"a round's magic number", flip(0, 3*b), []int{3}, 0, []journal.DamageError{{Path: path0, Pos: 3 * b, End: 5 * b, First: 3, Next: 4}}},
		{"a round's length", flip(0, 3*b+33), []int{3}, 0, []journal.DamageError{{Path: path0, Pos: 3 * b, End: 5 * b, First: 3, Next: 4}}},
		{"padding", flip(0, 2*b-1), nil, 0, nil},
		{"two rounds", func(t *testing.T, fsys *vfs.Mem) {
			edit(t, fsys, 1, func(all []byte) { clear(all[b : 4*b]) })
		}, []int{5, 6}, 0, []journal.DamageError{{Path: path1, Pos: b, End: 4 * b, First: 5, Next: 7}}},
		{"a round in the place of an older one", func(t *testing.T, fsys *vfs.Mem) {
			edit(t, fsys, 0, func(all []byte) { copy(all[b:], all[2*b:3*b]) })
		}, []int{1}, 0, []journal.DamageError{{Path: path0, Pos: b, End: b, First: 1, Next: 2}, {Path: path0, Pos: 2 * b, End: 3 * b, First: 3, Next: 3}}},
		{"the last round", flip(1, 4*b+60), []int{7}, 1, nil},
		{"the last round of the older file", flip(0, 5*b+60), []int{4}, 1, []journal.DamageError{{Path: path1, First: 4, Next: 5}}},
		{"a header", flip(1, 9), nil, 0, []journal.DamageError{{Path: path1, End: b}}},
		{"the older header", flip(0, 9), nil, 0, []journal.DamageError{{Path: path0, End: b}}},
		{"a header and the round behind it", func(t *testing.T, fsys *vfs.Mem) {
			flip(1, 9)(t, fsys)
			flip(1, b+9)(t, fsys)
		}, []int{5}, 0, []journal.DamageError{{Path: path1, End: 2 * b}, {Path: path1, First: 5, Next: 6}}},
		{"a whole file", func(t *testing.T, fsys *vfs.Mem) {
			edit(t, fsys, 0, func(all []byte) { clear(all) })
		}, []int{1, 2, 3, 4}, 0, []journal.DamageError{{Path: path0, End: b}, {Path: path1, First: 1, Next: 5}}},
		{"the end of a file", func(t *testing.T, fsys *vfs.Mem) {
			f, err := fsys.Open(journal.Names[0], vfs.ReadWrite)
			must(t, err)
			must(t, f.Truncate(4*b+100))
			must(t, f.Close())
		}, []int{3, 4}, 1, []journal.DamageError{{Path: path1, First: 3, Next: 5}}},
		{"an empty file", func(t *testing.T, fsys *vfs.Mem) {
			f, err := fsys.Open(journal.Names[1], vfs.ReadWrite)
			must(t, err)
			must(t, f.Truncate(0))
			must(t, f.Close())
		}, []int{5, 6, 7}, 0, []journal.DamageError{{Path: path1, End: b}}},
		{"the older file", remove(0), []int{1, 2, 3, 4}, 0, []journal.DamageError{{Path: path1, First: 1, Next: 5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys, rounds := full(t)
			c.do(t, fsys)
			got, found := replay(t, fsys)
			if want := without(rounds, c.lost...); !slices.Equal(got, want) || found.Torn != c.torn || found.Rounds != int64(len(want)) {
				t.Errorf("%d of %d rounds: %+v", len(got), len(want), found)
			}
			if len(found.Damaged) != len(c.damage) {
				t.Fatalf("damage %v, want %+v", found.Damaged, c.damage)
			}
			for i, err := range found.Damaged {
				e, ok := errors.AsType[*journal.DamageError](err)
				if !ok || e.Reason == "" || !strings.Contains(err.Error(), e.Path) {
					t.Fatalf("damage %v", err)
				}
				want := c.damage[i]
				want.Reason = e.Reason
				if *e != want {
					t.Errorf("damage %+v, want %+v", *e, want)
				}
			}
			open(t, fsys, small)
			if got, found := replay(t, fsys); got != nil || found.Damaged != nil {
				t.Errorf("after Open: %d entries, %+v", len(got), found)
			}
		})
	}
}

// An older generation of a file, as if writes to it had never reached the device.
func TestStaleFile(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := open(t, fsys, small)
	old := []given{round(t, j, 1, 100), round(t, j, 2, 100)}
	stale := contents(t, fsys, 0)
	j.Turn()
	round(t, j, 3, 100)
	j.Turn()
	round(t, j, 4, 100)
	round(t, j, 5, 100)
	round(t, j, 6, 100)
	j.Turn()
	newer := []given{round(t, j, 7, 100)}
	edit(t, fsys, 0, func(b []byte) { copy(b, stale) })
	got, found := replay(t, fsys)
	if !slices.Equal(got, slices.Concat(old, newer)) || len(found.Damaged) != 1 {
		t.Fatalf("%d entries, %+v", len(got), found)
	}
	if e, ok := errors.AsType[*journal.DamageError](found.Damaged[0]); !ok || e.First != 3 || e.Next != 7 {
		t.Errorf("damage %v", found.Damaged[0])
	}
}

// What a client sent may look like a round, at the start of a block, of this generation and with the next number, behind a round that was torn: it
// lacks the key.
func TestWhatClientsSendIsNoRound(t *testing.T) {
	const header, entryHeader = 40, 45
	const key = 0x1234567890abcdef
	for _, guess := range []uint64{0, key ^ 1, key} {
		fsys := vfs.NewMem(1)
		j, err := journal.OpenWithKeys(fsys, small, func() uint64 { return key })
		must(t, err)
		j.Begin()
		want := []given{add(j, 1, 100)}
		must(t, j.Commit())
		generation := contents(t, fsys, 0)[8:16]
		j.Begin()
		e, _ := entry(2, 2*journal.Block)
		data := j.Add(e)
		forged, forgedData := entry(3, 10)
		image := journal.Round(uint64(generation[7]), guess, 3, forged, forgedData)
		copy(data[journal.Block-header-entryHeader-len(e.Dir):], image)
		must(t, j.Commit())
		must(t, j.Close())
		if got, _ := replay(t, fsys); len(got) != 2 {
			t.Fatalf("%d entries of 2 while nothing is torn", len(got))
		}
		edit(t, fsys, 0, func(b []byte) { clear(b[2*journal.Block : 3*journal.Block]) })
		got, found := replay(t, fsys)
		if guess == key { // the image is right but for that
			if len(got) != 2 || len(found.Damaged) != 1 {
				t.Errorf("with the key: %d entries, %+v", len(got), found)
			}
			continue
		}
		if !slices.Equal(got, want) || found.Damaged != nil {
			t.Errorf("key %x: %d entries, %+v", guess, len(got), found)
		}
	}
}

// A file of a newer format is refused by everything, and stays as it is.
func TestNewerFormat(t *testing.T) {
	for file := range 2 {
		fsys, _ := full(t)
		edit(t, fsys, file, func(b []byte) { b[3] = '2' })
		before := contents(t, fsys, file)
		_, err := journal.Replay(fsys, func(journal.Entry, []byte) error {
			t.Error("an entry was given")
			return nil
		})
		_, openErr := journal.Open(fsys, small)
		for what, err := range map[string]error{"Replay": err, "Open": openErr, "Remove": journal.Remove(fsys)} {
			if !errors.Is(err, journal.ErrVersion) || !strings.Contains(err.Error(), fmt.Sprintf("commit-journal.%d: journal: unknown format version '2', this is '1'", file)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if !bytes.Equal(contents(t, fsys, file), before) {
			t.Error("the file was changed")
		}
	}
}

// A device that cannot read is no damage that may be stepped over.
func TestReadError(t *testing.T) {
	mem, _ := full(t)
	points := int64(0)
	for nth := int64(1); ; nth++ {
		fault := &vfs.Fault{Kinds: vfs.OpRead | vfs.OpOpen | vfs.OpSize, Nth: nth, Err: syscall.EIO}
		_, err := journal.Replay(vfs.WithFaults(mem, fault), func(journal.Entry, []byte) error { return nil })
		if fault.Fired() == 0 {
			must(t, err)
			break
		}
		points++
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "commit-journal.") {
			t.Errorf("fault %d: %v", nth, err)
		}
	}
	if points < 6 {
		t.Errorf("only %d calls", points)
	}
}

// A round whose checksum is right and whose content is not what a journal writes is no round.
func TestMalformedRounds(t *testing.T) {
	const header, key = 40, 7
	e, data := entry(2, 20)
	bad := func(change func(e *journal.Entry)) []byte {
		wrong := e
		change(&wrong)
		return journal.Round(3, key, 2, wrong, data)
	}
	changed := func(change func(b []byte)) []byte {
		b := journal.Round(3, key, 2, e, data)
		change(b)
		binary.BigEndian.PutUint32(b[4:], journal.Checksum(b[8:]))
		return b
	}
	put := binary.BigEndian.PutUint32
	for what, image := range map[string][]byte{
		"another directory":       bad(func(e *journal.Entry) { e.Dir = "../x" }),
		"no directory":            bad(func(e *journal.Entry) { e.Dir = "" }),
		"a base below 0":          bad(func(e *journal.Entry) { e.Base = -1 }),
		"a next offset below":     bad(func(e *journal.Entry) { e.Next = e.Base - 1 }),
		"a position below 0":      bad(func(e *journal.Entry) { e.Pos = -1 }),
		"a position at the end":   bad(func(e *journal.Entry) { e.Pos = math.MaxInt64 - 5 }),
		"an entry beyond the end": changed(func(b []byte) { put(b[header+40:], 21) }),
		"a huge entry":            changed(func(b []byte) { put(b[header+40:], math.MaxUint32) }),
		"an empty entry":          changed(func(b []byte) { put(b[header+40:], 0) }),
		"bytes behind the last":   changed(func(b []byte) { put(b[header+40:], 19) }),
		"a directory beyond":      changed(func(b []byte) { b[header+44] = 255 }),
		"two entries":             changed(func(b []byte) { put(b[36:], 2) }),
		"no entry":                changed(func(b []byte) { put(b[36:], 0) }),
		"many entries":            changed(func(b []byte) { put(b[36:], math.MaxUint32) }),
		"no length":               changed(func(b []byte) { put(b[32:], 0) }),
		"a huge length":           changed(func(b []byte) { put(b[32:], math.MaxUint32) }),
		"a length beyond":         changed(func(b []byte) { put(b[32:], 15<<20) }),
		"nothing wrong":           changed(func([]byte) {}),
	} {
		fsys := vfs.NewMem(1)
		j, err := journal.OpenWithKeys(fsys, small, func() uint64 { return key })
		must(t, err)
		want := []given{round(t, j, 1, 100)}
		must(t, j.Close())
		edit(t, fsys, 0, func(b []byte) { copy(b[2*journal.Block:], image) })
		if what == "nothing wrong" { // so that the others fail for what they say
			want = append(want, given{e, string(data)})
		}
		if got, found := replay(t, fsys); !slices.Equal(got, want) || found.Damaged != nil {
			t.Errorf("%s: %d entries, %+v", what, len(got), found)
		}
	}
}

// What lies behind the last round is of an older generation, though it goes on with the right number. Were keys alike, that alone would tell.
func TestOlderGeneration(t *testing.T) {
	fsys := vfs.NewMem(1)
	j, err := journal.OpenWithKeys(fsys, small, func() uint64 { return 7 })
	must(t, err)
	defer j.Close()
	for i := range 3 {
		round(t, j, i, 100)
	}
	must(t, j.Reset())
	round(t, j, 8, 100) // in the other file
	must(t, j.Reset())
	want := []given{round(t, j, 9, 100)}
	if got, found := replay(t, fsys); !slices.Equal(got, want) || found.Damaged != nil || found.Torn != 0 {
		t.Errorf("%d entries, %+v", len(got), found)
	}
}

// After a clean stop nothing is read but the headers, however large the files are.
func TestReplayOfAnEmptyJournal(t *testing.T) {
	mem := vfs.NewMem(1)
	j := open(t, mem, journal.Options{Bytes: 4 << 20, MaxRound: 1 << 20})
	round(t, j, 1, 100)
	must(t, j.Reset())
	reads := 0
	replay(t, vfs.WithTrace(mem, func(op vfs.Op) {
		if op.Kind == vfs.OpRead {
			reads++
		}
	}))
	if reads != 2 {
		t.Errorf("%d reads", reads)
	}
}
