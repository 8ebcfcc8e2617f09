package journal_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// The bytes of both files, as docs/formats/commit-journal.md has them.
func TestGolden(t *testing.T) {
	fsys := vfs.NewMem(1)
	keys := uint64(0xa0)
	j, err := journal.OpenWithKeys(fsys, journal.Options{Bytes: 3 * journal.Block, MaxRound: journal.Block}, func() uint64 { keys++; return keys })
	must(t, err)
	topic := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	j.Begin()
	copy(j.Add(journal.Entry{Dir: "orders-3", TopicID: topic, Base: 41200, Pos: 1 << 20, Next: 41207, Bytes: 5}), "hello")
	copy(j.Add(journal.Entry{Dir: "a-0", TopicID: topic, Base: 0, Pos: 0, Next: 1, Bytes: 1}), "!")
	must(t, j.Commit())
	j.Turn()
	j.Begin()
	copy(j.Add(journal.Entry{Dir: "a-0", TopicID: topic, Base: 0, Pos: 1, Next: 3, Bytes: 2}), "ab")
	must(t, j.Commit())
	must(t, j.Close())

	const topicID = "000102030405060708090a0b0c0d0e0f"
	want := [2][]string{{
		// magic, checksum, generation, key, first
		"4c474a31 c36d2570 0000000000000003 00000000000000a3 0000000000000001",
		// magic, checksum, generation, key, sequence, length, entries
		"4c475231 b3173b6b 0000000000000003 00000000000000a3 0000000000000001 00000093 00000002" +
			topicID + "000000000000a0f0 0000000000100000 000000000000a0f7 00000005 08 6f72646572732d33 68656c6c6f" +
			topicID + "0000000000000000 0000000000000000 0000000000000001 00000001 03 612d30 21",
	}, {
		"4c474a31 8d0f7bf2 0000000000000004 00000000000000a4 0000000000000002",
		"4c475231 00d1738b 0000000000000004 00000000000000a4 0000000000000002 0000005a 00000001" +
			topicID + "0000000000000000 0000000000000001 0000000000000003 00000002 03 612d30 6162",
	}}
	for file, parts := range want {
		var b []byte
		for _, part := range parts {
			raw, err := hex.DecodeString(strings.ReplaceAll(part, " ", ""))
			must(t, err)
			b = append(b, append(raw, make([]byte, journal.Block-len(raw))...)...)
		}
		b = append(b, make([]byte, journal.Block)...)
		if got := contents(t, fsys, file); !bytes.Equal(got, b) {
			t.Errorf("file %d:\n%s\nwant\n%s", file, dump(got), dump(b))
		}
	}
}

func dump(b []byte) string {
	var out strings.Builder
	for ; len(b) > 0; b = b[journal.Block:] {
		out.WriteString(hex.EncodeToString(bytes.TrimRight(b[:journal.Block], "\x00")) + "\n")
	}
	return out.String()
}
