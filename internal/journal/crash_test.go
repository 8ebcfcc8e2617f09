package journal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// script is a random run over a file system, with what a Replay may find if the run ended now.
type script struct {
	fsys    vfs.FS
	rng     *rand.Rand
	j       *journal.Journal
	files   [2][]given // older and newer: what was committed to them
	turned  bool       // the older one is to be overwritten
	allowed [][]given
	n       int // entries so far, each with bytes of its own
}

const block = journal.Block

func (s *script) options() journal.Options {
	return journal.Options{Bytes: int64(8+s.rng.IntN(2)*3) * block, MaxRound: 3 * block}
}

func (s *script) all() []given { return slices.Concat(s.files[0], s.files[1]) }

// may sets what Replay may find.
func (s *script) may(states ...[]given) { s.allowed = states }

// emptying is what can be found while both files are emptied.
func (s *script) emptying() { s.may(s.all(), slices.Clone(s.files[1]), nil) }

func (s *script) emptied() {
	s.files, s.turned = [2][]given{}, false
	s.may(nil)
}

func (s *script) open() (err error) {
	s.emptying()
	if s.j, err = journal.Open(s.fsys, s.options()); err == nil {
		s.emptied()
	}
	return err
}

func (s *script) commit() error {
	s.j.Begin()
	if s.j.Left() < 3*block {
		s.turn()
	}
	var round []given
	for range 1 + s.rng.IntN(4) {
		room := s.j.Room()
		if room == 0 {
			break
		}
		n := 1 + s.rng.IntN(min(room, 2000))
		if s.rng.IntN(10) == 0 {
			n = room
		}
		s.n++
		round = append(round, add(s.j, s.n, n))
	}
	kept := s.all()
	if s.turned {
		kept = slices.Clone(s.files[1])
	}
	s.may(s.all(), kept, slices.Concat(kept, round))
	if err := s.j.Commit(); err != nil {
		return err
	}
	if s.turned {
		s.files, s.turned = [2][]given{s.files[1], nil}, false
	}
	s.files[1] = append(s.files[1], round...)
	s.may(s.all())
	return nil
}

func (s *script) turn() {
	s.j.Turn()
	// Of an empty journal there is nothing to turn.
	s.turned = s.turned || len(s.all()) > 0
}

func (s *script) reset() error {
	s.emptying()
	err := s.j.Reset()
	if err == nil {
		s.emptied()
	}
	return err
}

// again closes the journal, without or with a Remove, and opens it.
func (s *script) again(remove bool) error {
	if err := s.j.Close(); err != nil {
		return err
	}
	if remove {
		s.emptying()
		if err := journal.Remove(s.fsys); err != nil {
			return err
		}
		s.emptied()
	}
	return s.open()
}

func (s *script) run(steps int) error {
	if err := s.open(); err != nil {
		return err
	}
	for range steps {
		var err error
		switch n := s.rng.IntN(100); {
		case n < 75:
			err = s.commit()
		case n < 85:
			if s.turn(); s.rng.IntN(3) == 0 {
				err = s.reset()
			}
		case n < 88:
			err = s.reset()
		default:
			err = s.again(n < 93)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check replays what is left, which must be one of the states that are possible, and goes on with it.
func (s *script) check(t *testing.T, left vfs.FS, how string) {
	t.Helper()
	got, found := replay(t, left)
	if found.Damaged != nil || !slices.ContainsFunc(s.allowed, func(want []given) bool { return slices.Equal(got, want) }) {
		var counts []int
		for _, want := range s.allowed {
			counts = append(counts, len(want))
		}
		t.Fatalf("%s: %d entries, one of %v belongs there; %+v", how, len(got), counts, found)
	}
	j, err := journal.Open(left, s.options())
	must(t, err)
	if got, found := replay(t, left); got != nil || found.Damaged != nil {
		t.Fatalf("%s: after Open %d entries, %+v", how, len(got), found)
	}
	j.Begin()
	want := []given{add(j, 1, 5000)}
	must(t, j.Commit())
	must(t, j.Close())
	if got, found := replay(t, left); !slices.Equal(got, want) || found.Damaged != nil {
		t.Fatalf("%s: after Open and Commit %d entries, %+v", how, len(got), found)
	}
}

// tearing cuts the power at a write or change of names, and lets a first part of a write around the cache happen.
type tearing struct {
	after int64
	part  int // blocks of that write
	seen  atomic.Int64
}

func (c *tearing) Fault(op vfs.Op) error {
	seen := c.seen.Load()
	if op.Kind&vfs.OpMutating != 0 {
		seen = c.seen.Add(1)
	}
	switch {
	case c.after == 0 || seen <= c.after:
		return nil
	case seen == c.after+1 && op.Kind == vfs.OpWrite && int64(c.part*block) < op.Len:
		return &vfs.ShortWrite{Bytes: c.part * block, Err: vfs.ErrPowerCut}
	}
	return vfs.ErrPowerCut
}

func newMem(seed uint64, direct bool) *vfs.Mem {
	mem := vfs.NewMem(seed)
	if direct {
		mem.SetDirect(vfs.Alignment{Mem: 512, Off: 512})
	}
	return mem
}

// The power goes at every write, sync and change of names of random runs. What Replay then gives are the rounds that were committed since what
// Turn overwrote, or Reset or Open emptied, and maybe the one that was being committed.
func TestPowerCutAnywhere(t *testing.T) {
	for _, direct := range []bool{false, true} {
		torn := int64(0)
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("direct=%v/%d", direct, seed), func(t *testing.T) {
				const steps = 40
				for after := int64(0); ; after++ {
					mem := newMem(seed, direct)
					cut := &tearing{after: after, part: int(after % 3)}
					s := &script{fsys: vfs.WithFaults(mem, cut), rng: rand.New(rand.NewPCG(seed, 2))}
					err := s.run(steps)
					if err != nil && !errors.Is(err, vfs.ErrPowerCut) {
						t.Fatal(err)
					}
					for crash := range uint64(6) {
						left := mem.Crash(vfs.CrashOptions{Seed: crash + 100*seed, KeepPercent: vfs.KeepRandom, Tear: crash%2 == 0})
						_, found := replay(t, left)
						torn += found.Torn
						s.check(t, left, fmt.Sprintf("power cut after %d changes, seed %d", after, crash))
					}
					s.check(t, mem.Kill(), fmt.Sprintf("kill after %d changes", after))
					if err == nil && after > 0 {
						if after < 50 {
							t.Errorf("only %d points to cut at", after)
						}
						break
					}
				}
			})
		}
		if torn == 0 {
			t.Errorf("direct=%v: no round was ever torn", direct)
		}
	}
}

// A write or sync fails once, anywhere. Nothing is written any more, every later Commit and Reset says so, and what is left is as after a power cut.
func TestFailedWriteIsFinal(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for _, short := range []bool{false, true} {
			for nth := int64(1); ; nth++ {
				fault := &vfs.Fault{Kinds: vfs.OpWrite | vfs.OpSync, Nth: nth, Err: syscall.EIO}
				if short {
					fault.Err = &vfs.ShortWrite{Bytes: block, Err: syscall.EIO}
				}
				mem, changes := newMem(3, direct), int64(0)
				counted := vfs.WithTrace(vfs.WithFaults(mem, fault), func(op vfs.Op) {
					if op.Kind&vfs.OpMutating != 0 {
						changes++
					}
				})
				s := &script{fsys: counted, rng: rand.New(rand.NewPCG(9, 2))}
				err := s.run(60)
				if fault.Fired() == 0 {
					must(t, err)
					if nth < 60 {
						t.Errorf("only %d writes and syncs", nth)
					}
					break
				}
				if !errors.Is(err, syscall.EIO) {
					t.Fatalf("fault %d: %v", nth, err)
				}
				if errors.Is(err, journal.ErrFailed) {
					before := changes
					s.j.Begin()
					add(s.j, 1, 10)
					again, reset := s.j.Commit(), s.j.Reset()
					if !errors.Is(again, journal.ErrFailed) || !errors.Is(again, syscall.EIO) || !errors.Is(reset, journal.ErrFailed) || changes != before {
						t.Errorf("fault %d: then Commit %v, Reset %v, %d changes", nth, again, reset, changes-before)
					}
				}
				for crash := range uint64(3) {
					s.check(t, mem.Crash(vfs.CrashOptions{Seed: crash, KeepPercent: vfs.KeepRandom, Tear: true}), fmt.Sprintf("direct %v, fault %d, power cut", direct, nth))
				}
				s.check(t, mem.Kill(), fmt.Sprintf("direct %v, fault %d, killed", direct, nth))
			}
		}
	}
}
