package rawkafka

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Conn is one connection with requests in lockstep.
type Conn struct {
	nc   net.Conn
	in   input
	id   string
	corr int32
	buf  []byte
	kept []byte // records of the last fetch that kept them

	// Patience is how long a request may take to be sent and a response to come whole, before the connection fails with
	// os.ErrDeadlineExceeded; 0: as long as it likes. It is set before the first request.
	Patience time.Duration
}

// begin starts the clock of a request or response.
func (c *Conn) begin() error {
	if c.Patience == 0 {
		return nil
	}
	return c.nc.SetDeadline(time.Now().Add(c.Patience))
}

// Dial connects under a client id.
func Dial(addr, clientID string) (*Conn, error) {
	nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &Conn{nc: nc, in: newInput(nc), id: clientID}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nc.Close() }

// Do sends a request at its version and reads the whole response.
func (c *Conn) Do(req kmsg.Request) (kmsg.Response, error) {
	if err := c.Send(req); err != nil {
		return nil, err
	}
	return c.Receive(req)
}

// Send writes a request; its response has to be received in order.
func (c *Conn) Send(req kmsg.Request) error {
	if err := c.begin(); err != nil {
		return err
	}
	c.corr++
	c.buf = kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(c.buf[:0], req, c.corr)
	_, err := c.nc.Write(c.buf)
	return err
}

// Receive reads the response to the oldest request that is owed one.
func (c *Conn) Receive(req kmsg.Request) (kmsg.Response, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	body, err := c.frame()
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	rd := kbin.Reader{Src: body}
	rd.Int32() // correlation id: one in flight per caller's order
	if resp.IsFlexible() && resp.Key() != 18 {
		kmsg.SkipTags(&rd)
	}
	return resp, resp.ReadFrom(rd.Src)
}

func (c *Conn) frame() ([]byte, error) {
	head, err := c.in.take(4)
	if err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(head))
	if n < 4 || n > maxResponse {
		return nil, fmt.Errorf("rawkafka: response of %d bytes", n)
	}
	body := make([]byte, n)
	return body, c.in.full(body)
}

// maxResponse bounds what is allocated for a response that a broker claims to send.
const maxResponse = 256 << 20

// CreateTopic creates a topic with configs given as name, value, name, value…
func (c *Conn) CreateTopic(name string, partitions int32, configs ...string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 4, 60_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for i := 0; i+1 < len(configs); i += 2 {
		cfg := kmsg.NewCreateTopicsRequestTopicConfig()
		cfg.Name, cfg.Value = configs[i], kmsg.StringPtr(configs[i+1])
		t.Configs = append(t.Configs, cfg)
	}
	req.Topics = append(req.Topics, t)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	got := resp.(*kmsg.CreateTopicsResponse).Topics[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		message := ""
		if got.ErrorMessage != nil {
			message = *got.ErrorMessage
		}
		return fmt.Errorf("create %s: %w: %s", name, err, message)
	}
	return nil
}

// Produce sends one batch to one partition and waits for the ack. It returns the base offset.
func (c *Conn) Produce(topic string, partition int32, acks int16, batch []byte) (int64, error) {
	if err := c.SendProduce(topic, partition, acks, batch); err != nil {
		return 0, err
	}
	return c.ReceiveProduce()
}

// SendProduce and ReceiveProduce are Produce in two halves, for several in flight.
func (c *Conn) SendProduce(topic string, partition int32, acks int16, batch []byte) error {
	return c.Send(produceRequest(topic, partition, acks, batch))
}

// ReceiveProduce waits for the oldest ack.
func (c *Conn) ReceiveProduce() (int64, error) {
	resp, err := c.Receive(produceRequest("", 0, 0, nil))
	if err != nil {
		return 0, err
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}

func produceRequest(topic string, partition int32, acks int16, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 9, acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}
