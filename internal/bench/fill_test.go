package bench

import (
	"testing"
)

// TestFillPlan: old has the values that were asked for, however much a batch takes beside them.
func TestFillPlan(t *testing.T) {
	for _, record := range []int{valueHeader, 100, 1 << 10, 100_000, 512 << 10} {
		records, each := fillPlan(1<<30, 4, record)
		if values := int64(records) * int64(record) * each * 4; values < 1<<30 || values > 1<<30+8*mib {
			t.Errorf("records of %d bytes: %d bytes of values, want %d", record, values, 1<<30)
		}
	}
}
