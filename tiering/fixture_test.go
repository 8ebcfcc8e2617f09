package tiering_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lagoon/internal/vfs"
	"lagoon/segment"
	"lagoon/tiering"
)

const (
	testDir   = "orders-3"
	testBase  = segment.Offset(4100)
	testEpoch = int32(7)
	// testChunk makes a small segment take several transfers.
	testChunk = 8192
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// files are a segment's files by suffix.
type files map[string][]byte

// fixture is a sealed segment and the two tiers it moves between.
type fixture struct {
	files   files
	next    segment.Offset
	up      bool // the segment moves from the colder tier to the hotter one; the fields keep their names
	ssd     *vfs.Mem
	hdd     *vfs.Mem
	bounds  []int64          // start of each batch
	offsets []segment.Offset // first offset of each batch
}

// appendBatch appends one batch of n records as they lie on disk, with filler for records.
func appendBatch(log []byte, base segment.Offset, n int, timestampMs int64, filler []byte) []byte {
	b := make([]byte, segment.BatchHeaderSize+len(filler))
	copy(b[segment.BatchHeaderSize:], filler)
	binary.BigEndian.PutUint64(b[0:], uint64(base))
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[12:], uint32(testEpoch))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(n-1))
	binary.BigEndian.PutUint64(b[27:], uint64(timestampMs))
	binary.BigEndian.PutUint64(b[35:], uint64(timestampMs))
	binary.BigEndian.PutUint64(b[43:], ^uint64(0)) // no producer
	binary.BigEndian.PutUint16(b[51:], 0xffff)
	binary.BigEndian.PutUint32(b[53:], 0xffffffff)
	binary.BigEndian.PutUint32(b[57:], uint32(n))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return append(log, b...)
}

// newFixture makes a segment of n batches with about size bytes each, in ssd, synced, and an empty hdd.
func newFixture(t testing.TB, seed uint64, n, size int) *fixture {
	t.Helper()
	f := &fixture{files: files{}, ssd: vfs.NewMem(seed), hdd: vfs.NewMem(seed + 1)}
	rng := rand.New(rand.NewPCG(seed, 1))
	offset := testBase
	var log, index, timeIndex []byte
	for i := range n {
		records := 1 + rng.IntN(9)
		filler := make([]byte, size/2+rng.IntN(size+1))
		for j := range filler {
			filler[j] = byte(rng.Uint32())
		}
		pos := int64(len(log))
		f.bounds, f.offsets = append(f.bounds, pos), append(f.offsets, offset)
		ms := int64(1_700_000_000_000 + 1000*i)
		log = appendBatch(log, offset, records, ms, filler)
		offset += segment.Offset(records)
		last := uint32(offset - 1 - testBase)
		if i > 0 {
			index = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(index, last), uint32(pos))
		}
		timeIndex = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(timeIndex, uint64(ms)), last)
	}
	f.next = offset
	f.files[".log"], f.files[".index"], f.files[".timeindex"] = log, index, timeIndex
	f.install(t)
	return f
}

// install writes the files to ssd.
func (f *fixture) install(t testing.TB) {
	t.Helper()
	must(t, f.ssd.MkdirAll(testDir))
	for suffix, data := range f.files {
		must(t, vfs.WriteFileAtomic(f.ssd, segmentFile(suffix), data))
	}
	must(t, vfs.WriteFileAtomic(f.ssd, testDir+"/partition.metadata", []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n")))
}

// job moves the segment between two views of the tiers.
func (f *fixture) job(ssd, hdd vfs.FS) tiering.Job {
	return tiering.Job{Dir: testDir, Base: testBase, SizeBytes: int64(len(f.files[".log"])), Next: f.next, Dense: true,
		EpochAt: func(segment.Offset) int32 { return testEpoch },
		From:    tiering.Tier{Name: "ssd", FS: ssd}, To: tiering.Tier{Name: "hdd", FS: hdd}}
}

// sweep sweeps both, hot to cold.
func (f *fixture) sweep(ssd, hdd vfs.FS) (tiering.Swept, error) {
	tiers := tiersOf(ssd, hdd)
	if f.up {
		slices.Reverse(tiers)
	}
	return tiering.Sweep(tiers, testDir)
}

// env publishes and removes the old copy at once.
func env() tiering.Env {
	return tiering.Env{
		Publish: func(context.Context, tiering.Job) error { return nil },
		Retire:  func(_ tiering.Job, remove func() error) { _ = remove() }, // what it could not do is Sweep's
	}
}

func tiersOf(ssd, hdd vfs.FS) []tiering.Tier {
	return []tiering.Tier{{Name: "ssd", FS: ssd}, {Name: "hdd", FS: hdd}}
}

func segmentFile(suffix string) string { return fmt.Sprintf("%s/%020d%s", testDir, testBase, suffix) }

// tree gives every file below a partition directory with its content.
func tree(t testing.TB, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found
	}
	must(t, err)
	for _, e := range entries {
		if e.Dir {
			for name, data := range tree(t, fsys, dir+"/"+e.Name) {
				found[e.Name+"/"+name] = data
			}
			continue
		}
		data, err := vfs.ReadFile(fsys, dir+"/"+e.Name, 1<<30)
		must(t, err)
		found[e.Name] = string(data)
	}
	return found
}

// complete tells whether a tier holds all of the segment, byte for byte.
func (f *fixture) complete(t testing.TB, fsys vfs.FS) bool {
	t.Helper()
	got := tree(t, fsys, testDir)
	for suffix, want := range f.files {
		if got[strings.TrimPrefix(segmentFile(suffix), testDir+"/")] != string(want) {
			return false
		}
	}
	return true
}

// clean fails when a partition directory holds anything but partition.metadata and, if full, the segment.
func (f *fixture) clean(t testing.TB, fsys vfs.FS, full bool, what string) {
	t.Helper()
	allowed := map[string]bool{"partition.metadata": true}
	if full {
		for suffix := range f.files {
			allowed[strings.TrimPrefix(segmentFile(suffix), testDir+"/")] = true
		}
	}
	for name := range tree(t, fsys, testDir) {
		if !allowed[name] {
			t.Fatalf("%s: left behind: %s", what, name)
		}
	}
}

// oneCopy sweeps and asserts that exactly one complete copy and nothing else is left, and gives its tier.
func (f *fixture) oneCopy(t testing.TB, ssd, hdd vfs.FS, what string) (inHDD bool) {
	t.Helper()
	if !f.complete(t, ssd) && !f.complete(t, hdd) {
		t.Fatalf("%s: no complete copy before the sweep; ssd %v, hdd %v", what, names(t, ssd), names(t, hdd))
	}
	swept, err := f.sweep(ssd, hdd)
	if err != nil {
		t.Fatalf("%s: sweep: %v", what, err)
	}
	if len(swept.Quarantined) > 0 {
		t.Fatalf("%s: quarantined %v", what, swept.Quarantined)
	}
	inSSD, inHDD := f.complete(t, ssd), f.complete(t, hdd)
	if inSSD == inHDD {
		t.Fatalf("%s: complete copies: ssd %v, hdd %v; ssd %v, hdd %v", what, inSSD, inHDD, names(t, ssd), names(t, hdd))
	}
	f.clean(t, ssd, inSSD, what+": ssd")
	f.clean(t, hdd, inHDD, what+": hdd")
	return inHDD
}

func names(t testing.TB, fsys vfs.FS) []string {
	t.Helper()
	var list []string
	for name, data := range tree(t, fsys, testDir) {
		list = append(list, fmt.Sprintf("%s(%d)", name, len(data)))
	}
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
