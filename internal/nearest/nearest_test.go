package nearest_test

import (
	"strings"
	"testing"

	"lagoon/internal/nearest"
)

func TestWord(t *testing.T) {
	names := []string{"orders", "payments", "rack", "segment_bytes", "segment_age"}
	for word, want := range map[string]string{
		"ordrs":                   "orders",   // one missing
		"oredrs":                  "orders",   // transposed
		"paymentss":               "payments", // one more
		"segmnt_byts":             "segment_bytes",
		"sgmnt_byts":              "", // three
		"rak":                     "rack",
		"ra":                      "", // two of two letters
		"":                        "",
		strings.Repeat("x", 1e6):  "",
		strings.Repeat("é", 1000): "",
	} {
		if got := nearest.Word(word, names); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
	}
	if got := nearest.Word("ab", nil); got != "" {
		t.Errorf("nothing to choose from gave %q", got)
	}
}
