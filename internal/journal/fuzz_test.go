package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// fuzzBlock is what the input has for each block of a file; the rest is zeros.
const fuzzBlock = 256

func expand(b []byte) (out []byte) {
	for len(b) > 0 {
		n := min(len(b), fuzzBlock)
		out = append(append(out, b[:n]...), make([]byte, journal.Block-n)...)
		b = b[n:]
	}
	return out
}

func squeeze(b []byte) (out []byte) {
	for ; len(b) > 0; b = b[journal.Block:] {
		out = append(out, b[:fuzzBlock]...)
	}
	return bytes.TrimRight(out, "\x00")
}

// mend gives each block that looks like a header or a round the checksum it should have.
func mend(b []byte) {
	for at := 0; at < len(b); at += journal.Block {
		p, end := b[at:], 0
		switch magic := string(p[:4]); {
		case magic == "LGJ1":
			end = 32
		case magic == "LGR1":
			end = int(binary.BigEndian.Uint32(p[32:]))
		}
		if end >= 8 && end <= len(p) {
			binary.BigEndian.PutUint32(p[4:], journal.Checksum(p[8:end]))
		}
	}
}

// Whatever the files hold: entries that make sense, typed errors, nothing that a round cannot hold; and a journal that is opened is empty.
func FuzzReplay(f *testing.F) {
	fsys, _ := full(f)
	a, b := squeeze(contents(f, fsys, 0)), squeeze(contents(f, fsys, 1))
	f.Add(a, b, true)
	f.Add(b, a, false)
	f.Add(a, a, true)
	f.Add([]byte{}, b, true)
	f.Fuzz(func(t *testing.T, a, b []byte, fix bool) {
		fsys := vfs.NewMem(1)
		size := 0
		for i, raw := range [][]byte{a, b} {
			raw = expand(raw[:min(len(raw), 64*fuzzBlock)])
			if fix {
				mend(raw)
			}
			if size += len(raw); len(raw) == 0 {
				continue
			}
			file, err := fsys.Create(journal.Names[i])
			must(t, err)
			_, err = file.WriteAt(raw, 0)
			must(t, errors.Join(err, file.Close()))
		}
		given := 0
		found, err := journal.Replay(fsys, func(e journal.Entry, data []byte) error {
			if given += len(data); len(data) != e.Bytes || len(data) == 0 || e.Base < 0 || e.Next < e.Base || e.Pos < 0 || e.Pos+int64(e.Bytes) < 0 || e.Dir == "" || e.Dir == ".." || bytes.ContainsAny([]byte(e.Dir), "/\x00") {
				t.Errorf("%+v with %d bytes", e, len(data))
			}
			return nil
		})
		if err != nil {
			if !errors.Is(err, journal.ErrVersion) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if given > size || int64(given) != found.Bytes {
			t.Errorf("%d bytes from files of %d: %+v", given, size, found)
		}
		for _, err := range found.Damaged {
			if _, ok := errors.AsType[*journal.DamageError](err); !ok {
				t.Errorf("untyped: %v", err)
			}
		}
		j, err := journal.Open(fsys, journal.Options{Bytes: 3 * journal.Block, MaxRound: journal.Block})
		must(t, err)
		defer j.Close()
		found, err = journal.Replay(fsys, func(e journal.Entry, _ []byte) error {
			t.Errorf("after Open: %+v", e)
			return nil
		})
		if err != nil || found.Damaged != nil {
			t.Errorf("after Open: %+v, %v", found, err)
		}
	})
}
