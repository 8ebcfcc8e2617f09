// Package wire is the part of the Kafka protocol that is on the path of every byte: frames, request headers, the Produce
// and Fetch codecs, and the sender that puts record bytes into a Fetch response without an encoder ever seeing them. All
// other messages are kmsg's, which is also the oracle of the tests here.
//
// It knows nothing of topics, logs or sessions, starts no goroutine and keeps no state but pools.
//
//	FrameReader   int32 size, then the frame; memory follows the bytes that have arrived, charged to a Budget
//	ParseHeader   request header v1, SkipHeaderTags the rest of v2
//	ProduceRequest.Read, FetchRequest.Read      flat, reusable, aliasing the frame; counts are checked against the bytes
//	AppendProduce                               a response frame
//	AppendFetch                                 a response frame with holes: Split says where which Payload goes
//	Sender.Send                                 fills the holes on the way out
//
// How a Fetch response leaves (one Send):
//
//	buf    [size, header, topic, partition, length of records][next partition …][…]
//	                                                          ▲ Split{At, Payload}
//	file range ≥ 512 KiB on plain TCP   what was gathered goes out with MSG_MORE, then sendfile(2) at an explicit position
//	smaller file range                  pread into one pooled buffer, gathered; sendfile where many responses hold one
//	memory                              gathered as it is
//	gathered                            one sendmsg(2) per MiB at most
//
// The position is explicit because one descriptor serves all connections (io.Copy's sendfile uses the file's own), and
// slices are at most 1 MiB so that the write deadline measures progress: a stalled client holds no heap beyond the pooled
// buffer. After a read error or a file that is too short, part of the response is out and the connection must be closed.
//
// # Ownership
//
// A Frame, a Buffer and a Payload have one owner at a time and are released once. In race builds released buffers are
// overwritten, so that a use after release shows. Send does not release payloads. Nothing here is safe for concurrent use.
package wire
