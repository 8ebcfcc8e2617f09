package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/quotas"
)

// TestQuotaRates: who has a byte quota is shown with what it uses, under the names of the quota's entity; nobody else is, and nobody who
// has not used it lately.
func TestQuotaRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := newMetrics(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		l := newLimiter(map[quotas.Entity]map[string]float64{
			{ClientID: quotas.Named("etl")}: {"producer_byte_rate": 1e6},
			{User: quotas.Default()}:        {"consumer_byte_rate": 1e6},
		}, m)
		reg := prometheus.NewRegistry()
		reg.MustRegister(quotaCollector{l})
		check := func(want ...string) {
			t.Helper()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range families {
				for _, s := range f.GetMetric() {
					line := f.GetName()
					for _, label := range s.GetLabel() {
						line += fmt.Sprintf(" %s=%s", label.GetName(), label.GetValue())
					}
					got = append(got, fmt.Sprintf("%s %g", line, s.GetGauge().GetValue()))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("exported:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		l.record(quotas.ProducerByteRate, clientOf("etl"), 10_000)
		l.record(quotas.ProducerByteRate, clientOf("other"), 10_000)
		l.record(quotas.ConsumerByteRate, clientOf("a"), 15_000)
		l.record(quotas.ConsumerByteRate, clientOf("b"), 5_000)
		time.Sleep(10 * time.Second)
		check("kafka_server_quota_byte_rate clientId= resource=Fetch user=ANONYMOUS 2000",
			"kafka_server_quota_byte_rate clientId=etl resource=Produce user= 1000")
		time.Sleep(time.Minute)
		check()
	})
}
