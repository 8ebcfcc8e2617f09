package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/tests/internal/lagoontest"
)

// side is one of the two brokers.
type side struct {
	name   string
	addr   string
	ranges map[int16][2]int16 // lowest and highest version by key
	once   sync.Map           // the shared topics by name
}

// pair starts both brokers alike and waits until their coordinators work.
func pair(t *testing.T) (lagoon, kafka *side) {
	t.Helper()
	b := lagoontest.Start(t, lagoontest.Options{Tiers: []lagoontest.Tier{{Name: "ssd"}}, Set: []string{
		"groups.initial_rebalance_delay=0s", "groups.offsets_partitions=1",
	}})
	k := lagoontest.StartKafka(t, "group.initial.rebalance.delay.ms=0")
	sides := [2]*side{{name: "lagoon", addr: b.Bootstrap()}, {name: "kafka", addr: k.Bootstrap()}}
	for _, s := range sides {
		x := &exchange{t: t, side: s, prefix: "warm"}
		x.ready()
		x.close()
	}
	return sides[0], sides[1]
}

// answerTime is how long one response may take.
const answerTime = time.Minute

// step is what one request was answered.
type step struct {
	request  kmsg.Request
	response kmsg.Response // nil: the broker closed the connection
}

// failed ends a sequence whose set-up did not work.
type failed struct{ error }

// exchange is one sequence on one side. It is used by one goroutine.
type exchange struct {
	t       *testing.T
	side    *side
	prefix  string // of the names of this sequence: the same on both sides
	key     int16  // the API it is about, …
	version int16  // … asked in this version
	highest map[int16]int16
	steps   []step
	conns   map[int]*conn
	ids     map[string][16]byte
	uses    []string // shared topics
}

func (x *exchange) fail(format string, args ...any) {
	panic(failed{fmt.Errorf(format, args...)})
}

func (x *exchange) close() {
	for _, c := range x.conns {
		if c.c != nil {
			_ = c.c.Close() // the broker may have closed it
		}
	}
}

// conn is one connection. Its client id is its number, so that member ids are alike on both sides.
type conn struct {
	x    *exchange
	id   string
	c    net.Conn
	corr int32
}

// on is the connection with a number; it is opened with its first use.
func (x *exchange) on(n int) *conn {
	if c := x.conns[n]; c != nil && c.c != nil {
		return c
	}
	nc, err := net.Dial("tcp", x.side.addr)
	if err != nil {
		x.fail("%v", err)
	}
	if x.conns == nil {
		x.conns = map[int]*conn{}
	}
	x.conns[n] = &conn{x: x, id: fmt.Sprintf("%s-c%d", x.prefix, n), c: nc}
	return x.conns[n]
}

// send writes a request without waiting for its response: wait does. The API under test is asked in the version under test, others in
// the highest that both sides serve.
func (c *conn) send(req kmsg.Request) {
	x := c.x
	if req.Key() == x.key {
		req.SetVersion(x.version)
	} else if v, ok := x.highest[req.Key()]; ok {
		req.SetVersion(v)
	}
	c.corr++
	if err := c.c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		x.fail("%v", err)
	}
	if _, err := c.c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(nil, req, c.corr)); err != nil {
		x.fail("%T: %v", req, err)
	}
}

// wait reads the response to a request that was sent; nil when the broker closed the connection, and the next use opens another.
func (c *conn) wait(req kmsg.Request) kmsg.Response {
	x := c.x
	var head [4]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			x.fail("%T v%d: no response within %v", req, req.GetVersion(), answerTime)
		}
		_ = c.c.Close() // by the other side already
		c.c = nil
		return nil
	}
	body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 64<<20))
	if _, err := io.ReadFull(c.c, body); err != nil {
		x.fail("%T: response cut off: %v", req, err)
	}
	if len(body) < 4 || int32(binary.BigEndian.Uint32(body)) != c.corr {
		x.fail("%T: correlation id in %x, want %d", req, body[:min(len(body), 16)], c.corr)
	}
	body = body[4:]
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if req.Key() == 18 && len(body) >= 2 && binary.BigEndian.Uint16(body) == 35 { // a version too new is answered in version 0
		resp.SetVersion(0)
	}
	if resp.IsFlexible() && req.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			x.fail("%T: tags in the response header: %x", req, body[:min(len(body), 16)])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		x.fail("%T v%d: %v in %x", resp, req.GetVersion(), err, body)
	}
	return resp
}

// ask sends a request and keeps the response for the comparison.
func (c *conn) ask(req kmsg.Request) kmsg.Response {
	c.send(req)
	return c.take(req)
}

// take waits for the response to a request that was sent, and keeps it.
func (c *conn) take(req kmsg.Request) kmsg.Response {
	resp := c.wait(req)
	c.x.steps = append(c.x.steps, step{req, resp})
	return resp
}

// ask asks on the first connection.
func (x *exchange) ask(req kmsg.Request) kmsg.Response { return x.on(0).ask(req) }

// call is for set-up and polling: it is not compared, and has a version of its own.
func call[R kmsg.Response](x *exchange, req kmsg.Request) R {
	saved := x.key
	x.key = -1
	defer func() { x.key = saved }()
	c := x.on(99)
	c.send(req)
	resp := c.wait(req)
	if resp == nil {
		x.fail("set-up: %T v%d closed the connection", req, req.GetVersion())
	}
	return resp.(R)
}

// until polls for something that a broker does in its own time.
func (x *exchange) until(what string, done func() bool) {
	if !lagoontest.Poll(answerTime, done) {
		x.fail("set-up: %s: not within %v", what, answerTime)
	}
}

// ready returns when the broker's coordinators answer, and fills in what versions it serves.
func (x *exchange) ready() {
	av := kmsg.NewPtrApiVersionsRequest()
	av.ClientSoftwareName, av.ClientSoftwareVersion = "differential", "1"
	av.SetVersion(3)
	x.side.ranges = map[int16][2]int16{}
	for _, k := range call[*kmsg.ApiVersionsResponse](x, av).ApiKeys {
		x.side.ranges[k.ApiKey] = [2]int16{k.MinVersion, min(k.MaxVersion, highestKnown(k.ApiKey))}
	}
	x.highest = map[int16]int16{}
	for key, r := range x.side.ranges {
		x.highest[key] = r[1]
	}
	x.until("the group coordinator", func() bool {
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKey, find.CoordinatorKeys = "warm", []string{"warm"}
		found := call[*kmsg.FindCoordinatorResponse](x, find)
		if found.ErrorCode != 0 || len(found.Coordinators) != 1 || found.Coordinators[0].ErrorCode != 0 {
			return false
		}
		fetch := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "warm"
		fetch.Groups = append(fetch.Groups, g)
		return call[*kmsg.OffsetFetchResponse](x, fetch).Groups[0].ErrorCode == 0
	})
	if _, ok := x.side.ranges[26]; !ok { // EndTxn: no transactions here
		return
	}
	x.until("the transaction coordinator", func() bool {
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorType, find.CoordinatorKeys = 1, []string{"warm"}
		if c := call[*kmsg.FindCoordinatorResponse](x, find).Coordinators; len(c) != 1 || c[0].ErrorCode != 0 {
			return false
		}
		init := kmsg.NewPtrInitProducerIDRequest()
		init.TransactionalID, init.TransactionTimeoutMillis = kmsg.StringPtr("warm"), 60_000
		return call[*kmsg.InitProducerIDResponse](x, init).ErrorCode == 0
	})
}

func highestKnown(key int16) int16 {
	if req := kmsg.RequestForKey(key); req != nil {
		return req.MaxVersion()
	}
	return 0
}

// name is a name of this sequence.
func (x *exchange) name(s string) string { return x.prefix + "-" + s }

// topic makes a topic of this sequence, waits until its partitions are served, and returns its name. Configs are pairs of key and value.
func (x *exchange) topic(s string, partitions int32, configs ...string) string {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 10_000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = x.name(s), partitions, 1
	for i := 0; i+1 < len(configs); i += 2 {
		rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: configs[i], Value: &configs[i+1]})
	}
	req.Topics = append(req.Topics, rt)
	t := call[*kmsg.CreateTopicsResponse](x, req).Topics[0]
	if t.ErrorCode != 0 {
		x.fail("set-up: create topic %s: code %d", rt.Topic, t.ErrorCode)
	}
	x.knows(rt.Topic, t.TopicID)
	x.served(rt.Topic, partitions)
	return rt.Topic
}

// shared is a topic for sequences that only read it: it is made and filled once for each side. It returns the topic's name.
func (x *exchange) shared(s string, partitions int32, fill func(topic string)) string {
	once, _ := x.side.once.LoadOrStore(s, &sync.Once{})
	once.(*sync.Once).Do(func() {
		own := x.prefix
		x.prefix = "shared"
		defer func() { x.prefix = own }()
		fill(x.topic(s, partitions))
	})
	x.uses = append(x.uses, "shared-"+s)
	return "shared-" + s
}

// served waits until a topic's partitions have a leader that knows it is one.
func (x *exchange) served(topic string, partitions int32) {
	x.until("leaders of "+topic, func() bool {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for p := range partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		for _, p := range call[*kmsg.ListOffsetsResponse](x, req).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return false
			}
		}
		return true
	})
}

// id is the id of a topic, zero when there is none.
func (x *exchange) id(topic string) [16]byte {
	if id, ok := x.ids[topic]; ok {
		return id
	}
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	id := call[*kmsg.MetadataResponse](x, req).Topics[0].TopicID
	if id != [16]byte{} {
		x.knows(topic, id)
	}
	return id
}

// knows gives an id its topic's name in all answers: a word by order of appearance would differ between the sides when one of them tells of a topic with a
// later answer than the other.
func (x *exchange) knows(topic string, id [16]byte) {
	if x.ids == nil {
		x.ids = map[string][16]byte{}
	}
	x.ids[topic] = id
}

// named is the name of a topic that topic made or id was asked for.
func (x *exchange) named(id [16]byte) string {
	for name, known := range x.ids {
		if known == id {
			return name
		}
	}
	return ""
}

// write appends records to a topic and says where the first of them went.
func (x *exchange) write(topic string, partition int32, values ...string) int64 {
	return x.append(topic, partition, batch(values...))
}

func (x *exchange) append(topic string, partition int32, records []byte) int64 {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, x.id(topic)
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	p := call[*kmsg.ProduceResponse](x, req).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		x.fail("set-up: produce to %s/%d: code %d", topic, partition, p.ErrorCode)
	}
	return p.BaseOffset
}

// run runs a sequence on one side and returns what it was answered.
func run(t *testing.T, s *side, seq sequence, prefix string, version int16, highest map[int16]int16) (x *exchange, err error) {
	x = &exchange{t: t, side: s, prefix: prefix, key: seq.key, version: version, highest: highest}
	defer x.close()
	defer func() {
		switch f := recover().(type) {
		case nil:
		case failed:
			err = fmt.Errorf("%s: %w\nso far: %s", s.name, f.error, strings.Join(x.told(), "\n"))
		default:
			err = fmt.Errorf("%s: panic: %v\n%s\nso far: %s", s.name, f, debug.Stack(), strings.Join(x.told(), "\n"))
		}
	}()
	seq.run(x)
	return x, nil
}

// told is the responses so far, for a reader who looks for a fault.
func (x *exchange) told() (out []string) {
	for _, st := range x.steps {
		out = append(out, fmt.Sprintf("%T: %+v", st.request, st.response))
	}
	return out
}
