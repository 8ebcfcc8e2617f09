package broker

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/quotas"
)

// alterQuotas sets limits "user=a client-id=b key=1 -key"; "*" is the default.
func alterQuotas(entries ...string) *kmsg.AlterClientQuotasRequest {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	for _, text := range entries {
		e := kmsg.NewAlterClientQuotasRequestEntry()
		for _, word := range strings.Fields(text) {
			k, v, _ := strings.Cut(word, "=")
			switch {
			case strings.HasSuffix(k, "_rate") || strings.HasSuffix(k, "_percentage"):
				op := kmsg.NewAlterClientQuotasRequestEntryOp()
				if op.Key = strings.TrimPrefix(k, "-"); op.Key != k {
					op.Remove = true
				} else if _, err := fmt.Sscan(v, &op.Value); err != nil {
					panic(err)
				}
				e.Ops = append(e.Ops, op)
			default:
				p := kmsg.NewAlterClientQuotasRequestEntryEntity()
				if p.Type = k; v != "*" {
					p.Name = kmsg.StringPtr(v)
				}
				e.Entity = append(e.Entity, p)
			}
		}
		req.Entries = append(req.Entries, e)
	}
	return req
}

// describeQuotas asks for "user=a", "client-id=*" (the default), "ip?" (any).
func describeQuotas(a *adminBroker, version int16, strict bool, components ...string) string {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	req.Strict = strict
	for _, text := range components {
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		k, v, exact := strings.Cut(text, "=")
		switch {
		case !exact:
			c.EntityType, c.MatchType = strings.TrimSuffix(k, "?"), kmsg.QuotasMatchTypeAny
		case v == "*":
			c.EntityType, c.MatchType = k, kmsg.QuotasMatchTypeDefault
		default:
			c.EntityType, c.Match = k, kmsg.StringPtr(v)
		}
		req.Components = append(req.Components, c)
	}
	resp := ask[*kmsg.DescribeClientQuotasResponse](a, version, req)
	if resp.ErrorCode != 0 {
		return fmt.Sprintf("%d %s", resp.ErrorCode, text(resp.ErrorMessage))
	}
	if resp.Entries == nil {
		return "null"
	}
	var out []string
	for _, e := range resp.Entries {
		var words []string
		for _, p := range e.Entity {
			words = append(words, p.Type+"="+text(p.Name))
		}
		for _, v := range e.Values {
			words = append(words, fmt.Sprintf("%s:%g", v.Key, v.Value))
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "\n")
}

func TestClientQuotas(t *testing.T) {
	for version := int16(0); version <= 1; version++ {
		a := newAdminBroker(t, nil)
		alter := func(validateOnly bool, entries ...string) (out []string) {
			req := alterQuotas(entries...)
			req.ValidateOnly = validateOnly
			for _, e := range ask[*kmsg.AlterClientQuotasResponse](a, version, req).Entries {
				out = append(out, fmt.Sprintf("%d %s", e.ErrorCode, text(e.ErrorMessage)))
			}
			return out
		}
		if got := describeQuotas(a, version, false); got != "" {
			t.Errorf("at first: %q", got)
		}
		expect(t, "validate only", alter(true, "client-id=a producer_byte_rate=1"), "0 <null>")
		if got := describeQuotas(a, version, false); got != "" {
			t.Errorf("after validation: %q", got)
		}
		expect(t, "alter", alter(false,
			"client-id=a producer_byte_rate=1000 consumer_byte_rate=2000",
			"client-id=* request_percentage=12.5",
			"user=ann client-id=a consumer_byte_rate=5",
			"user=ann controller_mutation_rate=0.5",
			"ip=10.0.0.1 connection_creation_rate=9"), "0 <null>", "0 <null>", "0 <null>", "0 <null>", "0 <null>")
		expect(t, "again", alter(false, "client-id=a -producer_byte_rate", "ip=10.0.0.1 -connection_creation_rate"), "0 <null>", "0 <null>")
		for _, tc := range []struct {
			strict     bool
			components string
			want       string
		}{
			{false, "", "user=ann controller_mutation_rate:0.5\nuser=ann client-id=a consumer_byte_rate:5\nclient-id=<null> request_percentage:12.5\nclient-id=a consumer_byte_rate:2000"},
			{true, "client-id?", "client-id=<null> request_percentage:12.5\nclient-id=a consumer_byte_rate:2000"},
			{false, "client-id=a", "user=ann client-id=a consumer_byte_rate:5\nclient-id=a consumer_byte_rate:2000"},
			{true, "client-id=*", "client-id=<null> request_percentage:12.5"},
			{true, "user=ann client-id?", "user=ann client-id=a consumer_byte_rate:5"},
			{true, "ip?", ""},
			{true, "user=bob", ""},
			{false, "user=a user?", "42 Entity type user cannot appear more than once in the filter."},
			{false, "ip? user?", "42 Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."},
			{false, "group=x", "35 Unsupported entity type group"},
		} {
			if got := describeQuotas(a, version, tc.strict, strings.Fields(tc.components)...); got != tc.want {
				t.Errorf("v%d describe %s:\n%s\nwant\n%s", version, tc.components, got, tc.want)
			}
		}
		expect(t, "refused", alter(false, "", "user= producer_byte_rate=1", "group=g producer_byte_rate=1", "user=a user=b", "ip=nowhere connection_creation_rate=1",
			"user=a nonsense_rate=1", "user=b producer_byte_rate=0", "user=a producer_byte_rate=1 producer_byte_rate=2", "user=x -nonsense_rate",
			"client-id=c cold_fetch_byte_rate=20000", "client-id=c cold_fetch_byte_rate=30000", "user=u cold_fetch_byte_rate=20000",
			"client-id="+strings.Repeat("x", 257)+" producer_byte_rate=1"),
			"42 Invalid empty client quota entity", "42 Empty user not supported", "42 Unhandled client quota entity type: group",
			"42 Invalid client quota entity, duplicate entity entry user", "42 nowhere is not a valid IP address", "42 Invalid configuration key nonsense_rate",
			"42 Quota producer_byte_rate must be greater than 0", "42 Ignoring duplicate entity user=a", "0 <null>",
			"0 <null>", "42 Ignoring duplicate entity client-id=c",
			"42 cold_fetch_byte_rate is for client ids; a group has lagoon.catchup.max.bytes.per.second (kafka-configs --entity-type groups)",
			"42 A client-id of 257 bytes would never be met: only the first 256 bytes of what clients call themselves count")
		if got := a.meta.Snapshot().ClientCap(quotas.Named("c")); got != 20000 {
			t.Errorf("cap of cold reads %d", got)
		}
	}
}

// An address is one entity however it is spelled; the last word on it counts, also after a restart.
func TestAddressQuotaHasOneSpelling(t *testing.T) {
	a := newAdminBroker(t, nil)
	alter := func(entries ...string) {
		t.Helper()
		for i, e := range ask[*kmsg.AlterClientQuotasResponse](a, 1, alterQuotas(entries...)).Entries {
			if e.ErrorCode != 0 {
				t.Errorf("%s: %d %s", entries[i], e.ErrorCode, text(e.ErrorMessage))
			}
		}
	}
	alter("ip=10.0.0.1 connection_creation_rate=5", "ip=0:0:0:0:0:0:0:1 connection_creation_rate=6")
	alter("ip=::ffff:10.0.0.1 connection_creation_rate=7", "ip=::1 connection_creation_rate=8")
	want := "ip=10.0.0.1 connection_creation_rate:7\nip=::1 connection_creation_rate:8"
	if got := describeQuotas(a, 1, true, "ip?"); got != want {
		t.Errorf("described as\n%s\nwant\n%s", got, want)
	}
	if got := describeQuotas(a, 1, true, "ip=::ffff:a00:1"); got != "ip=10.0.0.1 connection_creation_rate:7" {
		t.Errorf("asked for in another spelling: %q", got)
	}
	for ip, want := range map[string]float64{"10.0.0.1": 7, "::1": 8} {
		if limit, _ := a.limits.table.Load().AddressLimit(ip); limit != want {
			t.Errorf("%s is limited to %v a second, want %v", ip, limit, want)
		}
	}
	alter("ip=::ffff:10.0.0.1 -connection_creation_rate", "ip=0::1 -connection_creation_rate")
	if got := describeQuotas(a, 1, true, "ip?"); got != "" {
		t.Errorf("after removal: %q", got)
	}
}

// throttledRig has a limit on the harness's client.
func throttledRig(t *testing.T, key string, value float64) *rig {
	r := newRig(t, nil)
	if err := r.b.meta.AlterQuotas(quotas.Entity{ClientID: quotas.Named("tester")}, map[string]float64{key: value}, nil); err != nil {
		t.Fatal(err)
	}
	r.b.limits.set(r.b.meta.Snapshot().Quotas)
	return r
}

// A producer above its rate is answered at once, is told how long to wait, and nothing is read from it for so long.
func TestProduceQuota(t *testing.T) {
	for _, acks := range []int16{-1, 1, 0} {
		synctest.Test(t, func(t *testing.T) {
			r := throttledRig(t, "producer_byte_rate", 1000)
			c, other := r.dial(), r.dial()
			began := time.Now()
			req := produceRequest(9, acks, "orders", records(0, batch(1, 30_000-80)))
			if c.send(req); acks != 0 {
				resp := c.receive(req, c.corr).(*kmsg.ProduceResponse)
				if resp.Topics[0].Partitions[0].ErrorCode != 0 || resp.ThrottleMillis < 19_900 || resp.ThrottleMillis > 20_100 {
					t.Fatalf("acks=%d: %+v", acks, resp)
				}
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("acks=%d: answered after %v", acks, d)
			}
			c.versions()
			if d := time.Since(began); d < 19_900*time.Millisecond || d > 20_100*time.Millisecond {
				t.Errorf("acks=%d: the next request was answered after %v", acks, d)
			}
			// The same client id on another connection has the same rate.
			resp := call[*kmsg.ProduceResponse](other, produceRequest(9, 1, "orders", records(0, batch(1, 30_000))))
			if resp.ThrottleMillis < 10_000 {
				t.Errorf("acks=%d: the other connection waits %d ms", acks, resp.ThrottleMillis)
			}
			var m dto.Metric
			if err := r.b.metrics.throttled[quotas.ProducerByteRate].Write(&m); err != nil || m.Counter.GetValue() != 2 {
				t.Errorf("acks=%d: %v requests were counted as throttled, %v", acks, m.Counter.GetValue(), err)
			}
		})
	}
}

// A muted connection ends with the broker, and with the client.
func TestMutedConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := throttledRig(t, "producer_byte_rate", 1)
		c := r.dial()
		resp := call[*kmsg.ProduceResponse](c, produceRequest(9, 1, "orders", records(0, batch(1, 30_000))))
		told := time.Duration(resp.ThrottleMillis) * time.Millisecond
		if told < 30_000*time.Second || told > 31_000*time.Second {
			t.Fatalf("throttled for %v", told)
		}
		var m dto.Metric
		if err := r.b.metrics.throttleSeconds[quotas.ProducerByteRate].Write(&m); err != nil || m.Counter.GetValue() != told.Seconds() {
			t.Errorf("counted as throttled for %v s, %v", m.Counter.GetValue(), err)
		}
		if rates := r.b.limits.rates(quotas.ProducerByteRate); len(rates) != 1 || rates[0].MeanPause != told {
			t.Errorf("shown as %+v", rates)
		}
		began := time.Now()
		c.send(kmsg.NewPtrApiVersionsRequest())
		synctest.Wait()
		if err := r.b.Shutdown(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("shutdown: %v after %v", err, time.Since(began))
		}
	})
}

// A throttle that is longer than the idle timeout is told as it is, and the connection ends as idle: whatever was sent on it is not served
// before its time.
func TestThrottleBeyondIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := throttledRig(t, "producer_byte_rate", 1)
		for _, waits := range []bool{true, false} {
			c := r.dial()
			if resp := call[*kmsg.ProduceResponse](c, produceRequest(9, 1, "orders", records(0, batch(1, 30_000)))); resp.ThrottleMillis < 29_000_000 {
				t.Errorf("told to wait %d ms", resp.ThrottleMillis)
			}
			began := time.Now()
			if !waits {
				c.send(kmsg.NewPtrApiVersionsRequest())
			}
			c.closed()
			if d := time.Since(began); d != 10*time.Minute {
				t.Errorf("client waits %v: closed after %v", waits, d)
			}
		}
	})
}

func TestFetchQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := throttledRig(t, "consumer_byte_rate", 1000)
		r.logs["orders-0"].fill(t, 10, 4000)
		c := r.dial()
		fetch := func(sessionID, epoch int32, topic string) *kmsg.FetchResponse {
			req := fetchRequest(12, topic, map[int32]int64{0: 0})
			if topic == "" {
				req.Topics = nil
			}
			req.SessionID, req.SessionEpoch = sessionID, epoch
			return call[*kmsg.FetchResponse](c, req)
		}
		size := func(resp *kmsg.FetchResponse) (n int) {
			for _, topic := range resp.Topics {
				for _, p := range topic.Partitions {
					n += len(p.RecordBatches)
				}
			}
			return n
		}
		first := fetch(0, 0, "orders")
		if n := size(first); n != 8000 || first.ThrottleMillis != 0 || first.SessionID == 0 { // two batches: what ten seconds bring is 10,000 bytes
			t.Fatalf("%d bytes, session %d, throttled for %d ms", n, first.SessionID, first.ThrottleMillis)
		}
		second := fetch(first.SessionID, 1, "")
		if n := size(second); n != 8000 || second.ThrottleMillis != 6000 { // 16,000 bytes are a second's 1,000 after 16 s
			t.Fatalf("%d bytes, throttled for %d ms", n, second.ThrottleMillis)
		}
		// Another connection does not get round it: an empty answer, its session gone, and later all goes on.
		muted := c
		c = r.dial()
		if resp := fetch(0, 0, "orders"); size(resp) != 0 || resp.ThrottleMillis != 6000 || resp.SessionID != 0 || len(resp.Topics) != 0 {
			t.Errorf("other connection: %d bytes, session %d, throttled for %d ms", size(resp), resp.SessionID, resp.ThrottleMillis)
		}
		c = muted
		began := time.Now()
		for epoch, n := int32(2), 0; n == 0; epoch++ {
			resp := fetch(first.SessionID, epoch, "")
			if n = size(resp); resp.ErrorCode != 0 || resp.SessionID != first.SessionID || n == 0 && resp.ThrottleMillis == 0 || epoch > 4 {
				t.Fatalf("in the session, epoch %d: error %d, session %d, %d bytes, throttled for %d ms", epoch, resp.ErrorCode, resp.SessionID, n, resp.ThrottleMillis)
			}
		}
		if d := time.Since(began); d < 6*time.Second || d > 12*time.Second { // windows are forgotten after 11 s
			t.Errorf("it went on after %v", d)
		}
	})
}

// Whoever spent too much of the broker's time waits after any request, those that are answered later included.
func TestRequestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := throttledRig(t, "request_percentage", 1)
		r.b.limits.spent(clientOf("tester"), 150*time.Millisecond) // 1.5 % over ten seconds
		for _, req := range []kmsg.Request{kmsg.NewPtrListGroupsRequest(), kmsg.NewPtrDeleteGroupsRequest(), fetchRequest(12, "orders", nil)} {
			if req.Key() != 1 {
				req.SetVersion(2)
			}
			c := r.dial()
			began := time.Now()
			c.send(req)
			resp := c.receive(req, c.corr).(kmsg.ThrottleResponse)
			if ms, _ := resp.Throttle(); ms != 1000 {
				t.Errorf("%T: throttled for %d ms", resp, ms)
			}
			if c.versions(); time.Since(began) != time.Second {
				t.Errorf("%T: the next was answered after %v", resp, time.Since(began))
			}
		}
	})
}

// Mutations of the catalogue: new clients are refused while they are in debt, old ones wait.
func TestMutationQuota(t *testing.T) {
	a := newAdminBroker(t, nil)
	if got := ask[*kmsg.AlterClientQuotasResponse](a, 1, alterQuotas("client-id=test controller_mutation_rate=0.1")).Entries[0]; got.ErrorCode != 0 {
		t.Fatal(text(got.ErrorMessage))
	}
	create := func(version int16, name string) int16 {
		req := kmsg.NewPtrCreateTopicsRequest()
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 3, 1
		req.Topics = append(req.Topics, topic)
		return ask[*kmsg.CreateTopicsResponse](a, version, req).Topics[0].ErrorCode
	}
	if code := create(6, "a"); code != 0 { // the bucket held 1.1, which makes a debt
		t.Errorf("first topic: %d", code)
	}
	if code := create(6, "b"); code != 89 {
		t.Errorf("second topic: %d, want THROTTLING_QUOTA_EXCEEDED", code)
	}
	if code := create(5, "c"); code != 0 {
		t.Errorf("an old client's topic: %d", code)
	}
	if _, made := a.meta.Snapshot().Topic("b"); made {
		t.Error("a refused topic was made")
	}
	grow := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = "a", 5
	grow.Topics = append(grow.Topics, topic)
	if code := ask[*kmsg.CreatePartitionsResponse](a, 3, grow).Topics[0].ErrorCode; code != 89 {
		t.Errorf("grow: %d", code)
	}
	del := kmsg.NewPtrDeleteTopicsRequest()
	gone := kmsg.NewDeleteTopicsRequestTopic()
	gone.Topic = kmsg.StringPtr("a")
	del.Topics = append(del.Topics, gone)
	if code := ask[*kmsg.DeleteTopicsResponse](a, 6, del).Topics[0].ErrorCode; code != 89 {
		t.Errorf("delete: %d", code)
	}
	del.TopicNames, del.Topics = []string{"a"}, nil
	if code := ask[*kmsg.DeleteTopicsResponse](a, 4, del).Topics[0].ErrorCode; code != 0 {
		t.Errorf("an old client's deletion: %d", code)
	}
}

// A client that makes topics by asking for them pays as one that makes them: what it is refused is not there yet, which it asks for again.
func TestMutationQuotaOfAutoCreation(t *testing.T) {
	a := newAdminBroker(t, nil)
	if got := ask[*kmsg.AlterClientQuotasResponse](a, 1, alterQuotas("client-id=test controller_mutation_rate=0.1")).Entries[0]; got.ErrorCode != 0 {
		t.Fatal(text(got.ErrorMessage))
	}
	expect(t, "two topics", metadataLines(ask[*kmsg.MetadataResponse](a, 12, metadataRequest("a", "b"))), "a 5 0", "b 3 0") // the first makes a debt
	if names := a.meta.Snapshot().Names(); len(names) != 1 {
		t.Errorf("there is %v, want a", names)
	}
	expect(t, "one that is there", metadataLines(ask[*kmsg.MetadataResponse](a, 12, metadataRequest("a"))), "a 0 2")
}

// from is a connection from an address.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 5} }

// Connections that come too fast are closed, and not before the time that the client should wait.
func TestConnectionQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.b.meta.AlterQuotas(quotas.Entity{IP: quotas.Named("::ffff:10.0.0.7")}, map[string]float64{"connection_creation_rate": 1}, nil); err != nil {
			t.Fatal(err)
		}
		r.b.limits.set(r.b.meta.Snapshot().Quotas)
		dial := func(ip string) net.Conn {
			server, nc := net.Pipe()
			r.b.admit(r.ctx, &endpoint{Endpoint: r.b.opt.Endpoints[0], port: 9092}, from{server, ip})
			t.Cleanup(func() { nc.Close() })
			return nc
		}
		for range 10 {
			(&client{t: t, nc: dial("10.0.0.7")}).versions()
		}
		began := time.Now()
		(&client{t: t, nc: dial("10.0.0.7")}).closed()
		if d := time.Since(began); d != time.Second {
			t.Errorf("closed after %v", d)
		}
		(&client{t: t, nc: dial("10.0.0.8")}).versions()
		if n := r.b.Connections(); n != 11 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestDescribeUserScramCredentials(t *testing.T) {
	a := newAdminBroker(t, nil)
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	if resp := ask[*kmsg.DescribeUserSCRAMCredentialsResponse](a, 0, req); resp.ErrorCode != 0 || len(resp.Results) != 0 {
		t.Errorf("all users: %+v", resp)
	}
	for _, name := range []string{"ann", "bob", "bob"} {
		u := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
		u.Name = name
		req.Users = append(req.Users, u)
	}
	var got []string
	for _, res := range ask[*kmsg.DescribeUserSCRAMCredentialsResponse](a, 0, req).Results {
		got = append(got, fmt.Sprintf("%s %d", res.User, res.ErrorCode))
	}
	expect(t, "named users", got, "ann 91", "bob 92")
}
