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

// TestQuotaRates: who has a quota is shown with what it uses and how long it waits, under the names of the quota's entity; nobody else is,
// and nobody who has not used it lately.
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
			"kafka_server_quota_byte_rate clientId=etl resource=Produce user= 1000",
			"kafka_server_quota_throttle_time clientId= resource=Fetch user=ANONYMOUS 0",
			"kafka_server_quota_throttle_time clientId=etl resource=Produce user= 0")
		time.Sleep(time.Minute)
		check()

		// 20 and 40 MB at once, of 1 MB a second over ten: it waits for what is above.
		first := l.record(quotas.ProducerByteRate, clientOf("etl"), 20e6)
		second := l.record(quotas.ProducerByteRate, clientOf("etl"), 20e6)
		if first == 0 || second <= first {
			t.Fatalf("it waits %v and %v", first, second)
		}
		mean := fmt.Sprintf("kafka_server_quota_throttle_time clientId=etl resource=Produce user= %d", (first+second).Milliseconds()/2)
		check("kafka_server_quota_byte_rate clientId=etl resource=Produce user= 4e+06", mean)
		time.Sleep(31 * time.Second)
		l.record(quotas.ProducerByteRate, clientOf("etl"), 10) // used again, and it need not wait
		check("kafka_server_quota_byte_rate clientId=etl resource=Produce user= 1", mean)
		time.Sleep(30 * time.Second)
		l.record(quotas.ProducerByteRate, clientOf("etl"), 10)
		check("kafka_server_quota_byte_rate clientId=etl resource=Produce user= 1", "kafka_server_quota_throttle_time clientId=etl resource=Produce user= 0")

		// Two that have the same labels, those of a user and those of his clients without an id: one series, and no error.
		time.Sleep(time.Minute)
		l.record(quotas.ConsumerByteRate, clientOf(""), 10_000)
		l.set(map[quotas.Entity]map[string]float64{{User: quotas.Default(), ClientID: quotas.Default()}: {"consumer_byte_rate": 1e6}})
		l.record(quotas.ConsumerByteRate, clientOf(""), 20_000)
		check("kafka_server_quota_byte_rate clientId= resource=Fetch user=ANONYMOUS 2000", "kafka_server_quota_throttle_time clientId= resource=Fetch user=ANONYMOUS 0")
	})
}
