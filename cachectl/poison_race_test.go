//go:build race

package cachectl_test

import "testing"

func TestBuffer_PoisonedOnFree(t *testing.T) {
	p := newPool(t, 1)
	b := mustGet(t, p)
	mem := b.Bytes()
	mem[7] = 1
	b.Release()
	if mem[7] != 0xDB || mem[len(mem)-1] != 0xDB {
		t.Errorf("freed memory reads %#x", mem[7])
	}
	mem[9] = 2 // a late writer
	defer func() {
		if recover() == nil {
			t.Error("a write after the last Release went unnoticed")
		}
		mem[9] = 0xDB
	}()
	p.TryGet()
}
