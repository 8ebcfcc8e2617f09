//go:build race

package cachectl

import "bytes"

// poisonByte fills freed buffers in race builds: whoever still reads one sees nonsense, whoever still writes one is found
// out when the buffer is handed out again.
const poisonByte = 0xDB

func poison(mem []byte) {
	for i := range mem {
		mem[i] = poisonByte
	}
}

func checkPoison(mem []byte) {
	if bytes.Count(mem, []byte{poisonByte}) != len(mem) {
		panic("cachectl: a buffer was written after its last Release")
	}
}
