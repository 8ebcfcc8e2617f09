package crash

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"lagoon/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// cycles is LAGOON_CYCLES or what the default run can afford.
func cycles(t *testing.T, fallback int) int {
	t.Helper()
	s := os.Getenv("LAGOON_CYCLES")
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("LAGOON_CYCLES=%q: not a positive number", s)
	}
	return n
}

// long tells whether more than the default run was asked for.
func long() bool { return os.Getenv("LAGOON_CYCLES") != "" }

// seeded gives a generator whose seed is in the log.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LAGOON_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("LAGOON_SEED=%q: %v", s, err)
		}
		seed = n
	}
	t.Logf("LAGOON_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
