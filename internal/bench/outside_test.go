package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestColdBytesOfManyReaders: real-time readers are not cut off by a list that is full of others, and a list that is cut off is no figure.
func TestColdBytesOfManyReaders(t *testing.T) {
	total := 2
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("topic") {
		case "live":
			_, _ = fmt.Fprintf(w, `{"total":%d,"readers":[{"topic":"live","cold_bytes_total":5},{"topic":"live","cold_bytes_total":6}]}`, total)
		default: // those of old first: they lag most
			_, _ = io.WriteString(w, `{"total":1100,"readers":[{"topic":"old","cold_bytes_total":70}]}`)
		}
	}))
	defer s.Close()
	o := Outside{Admin: s.URL}
	if n, err := o.coldBytes(t.Context(), "live"); err != nil || n != 11 {
		t.Errorf("%d bytes, %v; want 11", n, err)
	}
	total = 3
	if n, err := o.coldBytes(t.Context(), "live"); err == nil {
		t.Errorf("%d bytes of a list that is cut off", n)
	}
}
