//go:build race

package cachectl

import "bytes"

// poisonByte fills freed buffers in race builds: whoever still reads one sees nonsense, whoever still writes one is found
// out when the buffer is handed out again.
const poisonByte = 0xDB

// nonsense is copied over freed memory: byte by byte the race detector would take longer than the tests that free it.
var nonsense = bytes.Repeat([]byte{poisonByte}, 256<<10)

func poison(mem []byte) {
	for len(mem) > 0 {
		mem = mem[copy(mem, nonsense):]
	}
}

func checkPoison(mem []byte) {
	if bytes.Count(mem, []byte{poisonByte}) != len(mem) {
		panic("cachectl: a buffer was written after its last Release")
	}
}
