package tiering_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

// Every bit of the log, flipped before the copy, is found, and the segment stays where it is.
func TestSourceFlipInLog(t *testing.T) {
	f := newFixture(t, 20, 4, 80)
	for bit := range 8 * len(f.files[".log"]) {
		f.withFlip(t, ".log", bit, func(ssd, hdd vfs.FS, what string) {
			err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), env(), testChunk)
			corrupt, ok := tiering.SourceCorrupt(err, "ssd")
			if !ok || !strings.HasSuffix(corrupt.Path, segmentFile(".log")) {
				t.Fatalf("%s: got %v", what, err)
			}
			if pos := int64(bit / 8); pos < corrupt.Pos || (len(f.bounds) > 1 && corrupt.Pos == 0 && pos >= f.bounds[1]+61) {
				t.Fatalf("%s: reported at %d", what, corrupt.Pos)
			}
		})
	}
}

// Every bit of the indexes: found, or of no effect on any lookup.
func TestSourceFlipInIndexes(t *testing.T) {
	f := newFixture(t, 21, 12, 80)
	for _, suffix := range []string{".index", ".timeindex"} {
		found, harmless := 0, 0
		for bit := range 8 * len(f.files[suffix]) {
			f.withFlip(t, suffix, bit, func(ssd, hdd vfs.FS, what string) {
				err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), env(), testChunk)
				if err == nil {
					harmless++
					f.lookupsAgree(t, hdd, what)
					return
				}
				corrupt, ok := tiering.SourceCorrupt(err, "ssd")
				if !ok || !strings.HasSuffix(corrupt.Path, segmentFile(suffix)) {
					t.Fatalf("%s: got %v", what, err)
				}
				found++
			})
		}
		t.Logf("%s: %d found, %d harmless", suffix, found, harmless)
		if found < 10*harmless {
			t.Errorf("%s: only %d found, %d harmless", suffix, found, harmless)
		}
	}
}

// withFlip runs fn with one bit flipped in the source and checks that an error left the source as it was.
func (f *fixture) withFlip(t *testing.T, suffix string, bit int, fn func(ssd, hdd vfs.FS, what string)) {
	t.Helper()
	ssd, hdd := vfs.NewMem(1), vfs.NewMem(2)
	must(t, ssd.MkdirAll(testDir))
	for s, data := range f.files {
		if s == suffix {
			data = slices.Clone(data)
			data[bit/8] ^= 1 << (bit % 8)
		}
		must(t, vfs.WriteFileAtomic(ssd, segmentFile(s), data))
	}
	before := tree(t, ssd, testDir)
	fn(ssd, hdd, fmt.Sprintf("%s bit %d", suffix, bit))
	if after := tree(t, ssd, testDir); len(after) > 0 {
		for name, data := range before {
			if after[name] != data {
				t.Fatalf("%s bit %d: source file %s changed", suffix, bit, name)
			}
		}
		f.clean(t, hdd, false, "hdd")
	} else if _, err := hdd.Stat(segmentFile(".log")); err != nil {
		t.Fatalf("%s bit %d: in neither tier", suffix, bit)
	}
}

// lookupsAgree asserts that an index whose flip went unseen still sends every lookup to a right place.
func (f *fixture) lookupsAgree(t *testing.T, fsys vfs.FS, what string) {
	t.Helper()
	index, err := vfs.ReadFile(fsys, segmentFile(".index"), 1<<20)
	must(t, err)
	for from := testBase; from < f.next; from++ {
		floor := int64(0)
		for e := index; len(e) >= 8; e = e[8:] {
			if testBase+segment.Offset(binary.BigEndian.Uint32(e)) <= from {
				floor = int64(binary.BigEndian.Uint32(e[4:]))
			}
		}
		batch := 0
		for i, first := range f.offsets {
			if first <= from {
				batch = i
			}
		}
		if !slices.Contains(f.bounds, floor) || floor > f.bounds[batch] {
			t.Fatalf("%s: lookup of %d starts at %d, its batch at %d", what, from, floor, f.bounds[batch])
		}
	}
	times, err := vfs.ReadFile(fsys, segmentFile(".timeindex"), 1<<20)
	must(t, err)
	for i := 0; i+12 <= len(times); i += 12 {
		want := f.files[".timeindex"][i : i+12]
		off := segment.Offset(binary.BigEndian.Uint32(times[i+8:])) + testBase
		batch := i / 12
		end := f.next
		if batch+1 < len(f.offsets) {
			end = f.offsets[batch+1]
		}
		if string(times[i:i+8]) != string(want[:8]) || off < f.offsets[batch] || off >= end {
			t.Fatalf("%s: time entry %d leads elsewhere", what, batch)
		}
	}
}

// flipReader flips one bit of what it reads.
type flipReader struct {
	tiering.Reader
	bit int64
}

func (r flipReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if at := r.bit/8 - off; at >= 0 && at < int64(n) {
		p[at] ^= 1 << (r.bit % 8)
	}
	return n, err
}

// A bit that flips on the way from the source, or in what is read back, is found, and the source is kept.
func TestFlipInFlight(t *testing.T) {
	f := newFixture(t, 22, 6, 90)
	for _, suffix := range []string{".log", ".log" + segment.MigratingSuffix} {
		for bit := range 8 * int64(len(f.files[".log"])) {
			ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})
			e := env()
			e.Open = func(fsys vfs.FS, name string) (tiering.Reader, error) {
				r, err := fsys.Open(name, vfs.ReadOnly)
				if err == nil && strings.HasSuffix(name, suffix) {
					return flipReader{r, bit}, nil
				}
				return r, err
			}
			err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), e, testChunk)
			var corrupt *segment.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("%s bit %d: got %v", suffix, bit, err)
			}
			_, source := tiering.SourceCorrupt(err, "ssd")
			if source != (suffix == ".log") {
				t.Fatalf("%s bit %d: blamed on the wrong tier: %v", suffix, bit, err)
			}
			if !f.complete(t, ssd) {
				t.Fatalf("%s bit %d: ssd is not whole", suffix, bit)
			}
			f.clean(t, hdd, false, "hdd")
		}
	}
}

// A bit that flips on the target's device after it was written and synced, in any file, is found.
func TestFlipInTarget(t *testing.T) {
	f := newFixture(t, 23, 6, 90)
	for suffix, data := range f.files {
		for bit := range 8 * int64(len(data)) {
			ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), f.hdd.Crash(vfs.CrashOptions{Live: true})
			e := env()
			e.Drop = func(file vfs.File, pos, n int64) {
				if file.Name() != segmentFile(suffix)+segment.MigratingSuffix {
					return
				}
				_, err := file.WriteAt([]byte{data[bit/8] ^ 1<<(bit%8)}, bit/8)
				must(t, err)
				must(t, file.SyncData())
			}
			err := tiering.MigrateChunked(t.Context(), f.job(ssd, hdd), e, testChunk)
			var corrupt *segment.CorruptError
			var step *tiering.StepError
			if !errors.As(err, &corrupt) || !errors.As(err, &step) || step.Step != tiering.StepVerify {
				t.Fatalf("%s bit %d: got %v", suffix, bit, err)
			}
			if !f.complete(t, ssd) {
				t.Fatalf("%s bit %d: ssd is not whole", suffix, bit)
			}
			f.clean(t, hdd, false, "hdd")
		}
	}
}

// A source cut short, grown, or with a tail of zeros is found.
func TestSourceOfWrongLength(t *testing.T) {
	for _, suffix := range []string{".log", ".index", ".timeindex"} {
		f := newFixture(t, 24, 4, 80)
		whole := f.files[suffix]
		for n := range whole {
			f.wrongLength(t, suffix, whole[:n], n%entryBytes(suffix) == 0 && n > 0)
		}
		for _, extra := range []int{1, 8, 12, 24, 100} {
			f.wrongLength(t, suffix, append(slices.Clone(whole), make([]byte, extra)...), false)
		}
	}
}

func entryBytes(suffix string) int {
	return map[string]int{".index": 8, ".timeindex": 12, ".log": 1 << 30}[suffix]
}

// wrongLength migrates with one file replaced. Whole entries missing at the end of an index harm nobody.
func (f *fixture) wrongLength(t *testing.T, suffix string, data []byte, fine bool) {
	t.Helper()
	ssd, hdd := f.ssd.Crash(vfs.CrashOptions{Live: true}), vfs.NewMem(1)
	must(t, ssd.Remove(segmentFile(suffix)))
	must(t, vfs.WriteFileAtomic(ssd, segmentFile(suffix), data))
	for _, size := range []int{len(f.files[".log"]), len(data)} { // as the partition knows it, and as it is on disk
		job := f.job(ssd, hdd)
		if suffix == ".log" {
			job.SizeBytes = int64(size)
		}
		err := tiering.MigrateChunked(t.Context(), job, env(), testChunk)
		if _, ok := tiering.SourceCorrupt(err, "ssd"); !ok && !(fine && err == nil) && !(len(data) == 0 && suffix != ".log" && err == nil) {
			t.Fatalf("%s of %d bytes, expected %d: got %v", suffix, len(data), len(f.files[suffix]), err)
		}
		if err == nil {
			return
		}
	}
}
