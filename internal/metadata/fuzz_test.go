package metadata_test

import (
	"bytes"
	"errors"
	"testing"

	"lagoon/internal/metadata"
	"lagoon/internal/vfs"
)

// files makes the log and snapshot of a catalogue with one of everything.
func files(t testing.TB) (log, snapshot []byte) {
	mem := vfs.NewMem(1)
	s := open(t, mem, metadata.Options{CompactBytes: 1 << 20})
	fill(t, s)
	log = must[[]byte](t)(vfs.ReadFile(mem, dir+"/00000000000000000001.log", 1<<20))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return log, must[[]byte](t)(vfs.ReadFile(mem, dir+"/00000000000000000002.snapshot", 1<<20))
}

// What a log decodes to encodes to the same bytes, up to the torn tail; anything else is a CorruptError or ErrNewer.
func FuzzLog(f *testing.F) {
	log, _ := files(f)
	f.Add(log)
	f.Add(log[:len(log)-3])
	f.Add(append(bytes.Clone(log), make([]byte, 600)...))
	f.Add(log[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, size, torn, err := metadata.ParseLog(b, 1, 0)
		if err != nil {
			if !errors.Is(err, metadata.ErrCorrupt) && !errors.Is(err, metadata.ErrNewer) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if !bytes.Equal(frames, b[:size]) || size+torn != int64(len(b)) {
			t.Fatalf("%d valid + %d torn of %d bytes encode to %d other bytes", size, torn, len(b), len(frames))
		}
	})
}

// The same with a right checksum around whatever the record is.
func FuzzRecord(f *testing.F) {
	log, _ := files(f)
	for b := log[20:]; len(b) > 16; {
		n := 16 + int(b[3]) + int(b[2])<<8
		f.Add(bytes.Clone(b[16:n]))
		b = b[n:]
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		again, err := metadata.DecodeRecord(payload)
		if err == nil && !bytes.Equal(again, payload) {
			t.Fatalf("%x encodes to %x", payload, again)
		}
		if len(payload) == 0 {
			return
		}
		_, size, torn, lerr := metadata.ParseLog(metadata.SealFrame(metadata.LogHeader(1), 1, payload), 1, 0)
		if (err == nil) != (lerr == nil) || lerr == nil && (torn != 0 || size != int64(36+len(payload))) {
			t.Fatalf("record %v, log %v (%d valid, %d torn)", err, lerr, size, torn)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	_, snapshot := files(f)
	f.Add(snapshot)
	f.Add(snapshot[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := metadata.DecodeSnapshot(b, 2); err != nil && !errors.Is(err, metadata.ErrCorrupt) && !errors.Is(err, metadata.ErrNewer) {
			t.Fatalf("untyped: %v", err)
		}
	})
}

func TestSnapshotRoundTrip(t *testing.T) {
	_, snapshot := files(t)
	again, err := metadata.DecodeSnapshot(snapshot, 2)
	if err != nil || !bytes.Equal(again, snapshot) {
		t.Fatalf("%v: %d bytes encode to %d", err, len(snapshot), len(again))
	}
}

// A frame whose checksum holds and that makes no sense is damage, wherever it is.
func TestSealedNonsense(t *testing.T) {
	id := string(make([]byte, 16))
	for name, tc := range map[string]struct {
		payload string
		seq     uint64
		want    error
	}{
		"unknown kind":        {"\xee", 1, metadata.ErrNewer},
		"empty name":          {"\x01\x00" + id + "\x01\x00\x00", 1, metadata.ErrCorrupt},
		"huge text":           {"\x01\xff\xff\xff\xff\x0f", 1, metadata.ErrCorrupt},
		"huge map":            {"\x05" + id + "\xff\xff\xff\xff\x0f", 1, metadata.ErrCorrupt},
		"long-form number":    {"\x0a\x80\x00", 1, metadata.ErrCorrupt},
		"quota of nobody":     {"\x0c\x00\x00\x00\x00", 1, metadata.ErrCorrupt},
		"negative quota":      {"\x0c\x01\x00\x00\x01\x01a\xbf\xf0\x00\x00\x00\x00\x00\x00", 1, metadata.ErrCorrupt},
		"bytes left":          {"\x0a\x05x", 1, metadata.ErrCorrupt},
		"sequence that jumps": {"\x0a\x05", 2, metadata.ErrCorrupt},
	} {
		_, _, _, err := metadata.ParseLog(metadata.SealFrame(metadata.LogHeader(1), tc.seq, []byte(tc.payload)), 1, 0)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
