//! Frames in, events out.

use super::headers::{Decoder, Encoder};
use super::{Headers, SpdyError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fmt;

/// Which side of the connection this is; clients open odd streams, servers even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It began the connection.
    Client,
    /// It was connected to.
    Server,
}

/// The number of a stream.
pub type StreamId = u32;

/// What the peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It opened a stream; answer with [`Connection::reply`].
    Opened {
        /// The stream.
        id: StreamId,
        /// Its headers.
        headers: Headers,
        /// The peer sends nothing on it.
        fin: bool,
    },
    /// It accepted a stream of ours.
    Replied {
        /// The stream.
        id: StreamId,
        /// Its headers.
        headers: Headers,
        /// The peer sends nothing on it.
        fin: bool,
    },
    /// It sent data.
    Data {
        /// The stream.
        id: StreamId,
        /// The bytes; empty only with `fin`.
        bytes: Bytes,
        /// They are the last.
        fin: bool,
    },
    /// It gave a stream up.
    Reset {
        /// The stream.
        id: StreamId,
        /// The protocol's status code.
        status: u32,
    },
    /// It answered our ping.
    Pong(u32),
    /// It opens no further streams and takes none.
    GoAway,
}

/// Control frames are small; only headers have a length worth the name.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
const STREAMS_MAX: usize = 4096;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

const INVALID_STREAM: u32 = 2;
const REFUSED_STREAM: u32 = 3;

#[derive(Clone, Copy, Default)]
struct Stream {
    /// We sent our last byte.
    local_closed: bool,
    /// The peer did.
    remote_closed: bool,
}

/// A data frame of which not all has come.
struct Partial {
    id: StreamId,
    left: usize,
    fin: bool,
}

/// One side of a SPDY/3.1 connection.
pub struct Connection {
    role: Role,
    input: BytesMut,
    output: BytesMut,
    encoder: Encoder,
    decoder: Decoder,
    streams: BTreeMap<StreamId, Stream>,
    next_id: StreamId,
    /// The highest stream that the peer opened.
    last_peer_id: StreamId,
    partial: Option<Partial>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?}, {} streams)", self.role, self.streams.len())
    }
}

impl Connection {
    /// A connection at its beginning.
    pub fn new(role: Role) -> Self {
        Connection {
            role,
            input: BytesMut::new(),
            output: BytesMut::new(),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            streams: BTreeMap::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_peer_id: 0,
            partial: None,
        }
    }

    /// Takes in what the transport received; then call [`Connection::next_event`] until it has none.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What the transport has to send now; empty when nothing.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// Where the numbers of streams are used up.
    pub fn open(&mut self, headers: &[(&str, &str)], fin: bool) -> Result<StreamId, SpdyError> {
        let id = self.next_id;
        if id > 0x7fff_ffff || self.streams.len() >= STREAMS_MAX {
            return Err(SpdyError("no further stream can be opened"));
        }
        self.next_id += 2;
        let block = self.encoder.encode(headers)?;
        self.control(SYN_STREAM, fin_flag(fin), block.len() + 10);
        self.output.put_u32(id);
        self.output.put_u32(0);
        self.output.put_u16(0);
        self.output.put_slice(&block);
        self.streams.insert(id, Stream { local_closed: fin, remote_closed: false });
        Ok(id)
    }

    /// Accepts a stream that the peer opened.
    ///
    /// # Errors
    /// Where the stream is closed.
    pub fn reply(&mut self, id: StreamId, headers: &[(&str, &str)], fin: bool) -> Result<(), SpdyError> {
        if !self.streams.contains_key(&id) {
            return Err(SpdyError("the stream is closed"));
        }
        let block = self.encoder.encode(headers)?;
        self.control(SYN_REPLY, fin_flag(fin), block.len() + 4);
        self.output.put_u32(id);
        self.output.put_slice(&block);
        if fin {
            self.close(id, |s| s.local_closed = true);
        }
        Ok(())
    }

    /// Sends data; with `fin` nothing may follow on the stream.
    ///
    /// # Errors
    /// Where the stream is closed, by either side.
    pub fn send(&mut self, id: StreamId, bytes: &[u8], fin: bool) -> Result<(), SpdyError> {
        match self.streams.get(&id) {
            Some(stream) if !stream.local_closed => {}
            _ => return Err(SpdyError("the stream is closed")),
        }
        let mut chunks = bytes.chunks(1 << 20).peekable();
        let empty: &[u8] = &[];
        let mut next = chunks.next().or(fin.then_some(empty));
        while let Some(chunk) = next {
            next = chunks.next();
            let last = fin && next.is_none();
            self.output.reserve(chunk.len() + 8);
            self.output.put_u32(id);
            self.output.put_u32((u32::from(fin_flag(last)) << 24) | chunk.len() as u32);
            self.output.put_slice(chunk);
        }
        if fin {
            self.close(id, |s| s.local_closed = true);
        }
        Ok(())
    }

    /// Gives a stream up.
    pub fn reset(&mut self, id: StreamId, status: u32) {
        self.streams.remove(&id);
        self.control(RST_STREAM, 0, 8);
        self.output.put_u32(id);
        self.output.put_u32(status);
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, id: u32) {
        self.control(PING, 0, 4);
        self.output.put_u32(id);
    }

    /// Says that no further stream is taken.
    pub fn go_away(&mut self) {
        self.control(GOAWAY, 0, 8);
        self.output.put_u32(self.last_peer_id);
        self.output.put_u32(0);
    }

    /// The next thing that the peer did, `None` until more bytes come.
    ///
    /// # Errors
    /// Where the peer broke the protocol; the connection has to be closed then.
    pub fn next_event(&mut self) -> Result<Option<Event>, SpdyError> {
        loop {
            if self.partial.is_some() {
                match self.partial_data() {
                    Step::Wait => return Ok(None),
                    Step::Event(event) => return Ok(Some(event)),
                    Step::Nothing => continue,
                }
            }
            if self.input.len() < 8 {
                return Ok(None);
            }
            let first = u32::from_be_bytes([self.input[0], self.input[1], self.input[2], self.input[3]]);
            let second = u32::from_be_bytes([self.input[4], self.input[5], self.input[6], self.input[7]]);
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if first & 0x8000_0000 == 0 {
                self.input.advance(8);
                self.partial = Some(Partial { id: first, left: length, fin: flags & FLAG_FIN != 0 });
                continue;
            }
            if (first >> 16) as u16 & 0x7fff != VERSION {
                return Err(SpdyError("a frame of another version"));
            }
            if length > CONTROL_BYTES_MAX {
                return Err(SpdyError("a control frame is too long"));
            }
            if self.input.len() < 8 + length {
                return Ok(None);
            }
            self.input.advance(8);
            let payload = self.input.split_to(length).freeze();
            if let Some(event) = self.control_frame((first & 0xffff) as u16, flags, payload)? {
                return Ok(Some(event));
            }
        }
    }

    /// Hands on what has come of a data frame.
    fn partial_data(&mut self) -> Step {
        let Some(partial) = &mut self.partial else { return Step::Nothing };
        if partial.left > 0 && self.input.is_empty() {
            return Step::Wait;
        }
        let bytes = self.input.split_to(self.input.len().min(partial.left)).freeze();
        partial.left -= bytes.len();
        let (id, fin) = (partial.id, partial.fin && partial.left == 0);
        if partial.left == 0 {
            self.partial = None;
        }
        match self.streams.get(&id) {
            Some(stream) if !stream.remote_closed => {}
            _ => {
                // Data may cross our own reset; anything else is answered once it is whole.
                if self.partial.is_none() && id > self.last_peer_id.max(self.next_id) {
                    self.reset(id, INVALID_STREAM);
                }
                return Step::Nothing;
            }
        }
        if fin {
            self.close(id, |s| s.remote_closed = true);
        }
        if bytes.is_empty() && !fin { Step::Nothing } else { Step::Event(Event::Data { id, bytes, fin }) }
    }

    fn control_frame(
        &mut self,
        kind: u16,
        flags: u8,
        mut payload: Bytes,
    ) -> Result<Option<Event>, SpdyError> {
        let fin = flags & FLAG_FIN != 0;
        let least = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GOAWAY => 8,
            SYN_REPLY | HEADERS | PING => 4,
            // Settings, window updates and credentials ask nothing of us.
            _ => return Ok(None),
        };
        if payload.len() < least {
            return Err(SpdyError("a control frame is too short"));
        }
        let id = payload.get_u32() & 0x7fff_ffff;
        match kind {
            SYN_STREAM => {
                payload.advance(6);
                let headers = self.decoder.decode(&payload)?;
                self.opened(id, headers, flags)
            }
            SYN_REPLY => {
                let headers = self.decoder.decode(&payload)?;
                if !self.streams.contains_key(&id) {
                    return Ok(None);
                }
                if fin {
                    self.close(id, |s| s.remote_closed = true);
                }
                Ok(Some(Event::Replied { id, headers, fin }))
            }
            HEADERS => {
                // Decoded for the state of the compression; Kubernetes sends none.
                self.decoder.decode(&payload)?;
                if fin && self.streams.contains_key(&id) {
                    self.close(id, |s| s.remote_closed = true);
                    return Ok(Some(Event::Data { id, bytes: Bytes::new(), fin }));
                }
                Ok(None)
            }
            RST_STREAM => {
                let known = self.streams.remove(&id).is_some();
                Ok(known.then(|| Event::Reset { id, status: payload.get_u32() }))
            }
            PING => Ok(self.pinged(id)),
            _ => Ok(Some(Event::GoAway)),
        }
    }

    fn opened(&mut self, id: StreamId, headers: Headers, flags: u8) -> Result<Option<Event>, SpdyError> {
        let odd = id % 2 == 1;
        if id == 0 || odd != (self.role == Role::Server) || id <= self.last_peer_id {
            return Err(SpdyError("a stream has a number that its opener cannot use"));
        }
        self.last_peer_id = id;
        if self.streams.len() >= STREAMS_MAX {
            self.reset(id, REFUSED_STREAM);
            return Ok(None);
        }
        let fin = flags & FLAG_FIN != 0;
        let local_closed = flags & FLAG_UNIDIRECTIONAL != 0;
        if !(fin && local_closed) {
            self.streams.insert(id, Stream { local_closed, remote_closed: fin });
        }
        Ok(Some(Event::Opened { id, headers, fin }))
    }

    /// A ping of the peer's parity is answered, one of ours is an answer.
    fn pinged(&mut self, id: u32) -> Option<Event> {
        let odd = id % 2 == 1;
        if odd == (self.role == Role::Server) {
            self.ping(id);
            return None;
        }
        Some(Event::Pong(id))
    }

    fn close(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.get_mut(&id) {
            change(stream);
            if stream.local_closed && stream.remote_closed {
                self.streams.remove(&id);
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, length: usize) {
        self.output.reserve(length + 8);
        self.output.put_u16(0x8000 | VERSION);
        self.output.put_u16(kind);
        self.output.put_u32((u32::from(flags) << 24) | length as u32);
    }
}

/// What became of a look at the input.
enum Step {
    Wait,
    Nothing,
    Event(Event),
}

fn fin_flag(fin: bool) -> u8 {
    if fin { FLAG_FIN } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::*;

    fn events(connection: &mut Connection) -> Vec<Event> {
        std::iter::from_fn(|| connection.next_event().unwrap()).collect()
    }

    /// Sends what waits in `from` to `to`, in pieces of `step` bytes.
    fn carry(from: &mut Connection, to: &mut Connection, step: usize) -> Vec<Event> {
        let bytes = from.take_output();
        let mut all = Vec::new();
        for piece in bytes.chunks(step) {
            to.receive(piece);
            all.extend(events(to));
        }
        all
    }

    #[test]
    fn streams_carry_data_both_ways_in_any_pieces() {
        for step in [1, 7, 1 << 20] {
            let (mut client, mut server) = (Connection::new(Role::Client), Connection::new(Role::Server));
            let mut ids = Vec::new();
            for kind in ["error", "stdin", "stdout"] {
                ids.push(client.open(&[("StreamType", kind), ("port", "80")], false).unwrap());
            }
            let opened = carry(&mut client, &mut server, step);
            let kinds: Vec<&str> = opened
                .iter()
                .map(|e| match e {
                    Event::Opened { headers, fin: false, .. } => header(headers, "streamtype").unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!((kinds, ids.as_slice()), (vec!["error", "stdin", "stdout"], &[1, 3, 5][..]));
            for id in &ids {
                server.reply(*id, &[], false).unwrap();
            }
            assert_eq!(carry(&mut server, &mut client, step).len(), 3);
            let big = vec![7u8; 3_000_000];
            client.send(3, &big, true).unwrap();
            let mut got = Vec::new();
            let mut fins = 0;
            for event in carry(&mut client, &mut server, step.max(1000)) {
                let Event::Data { id: 3, bytes, fin } = event else { panic!("{event:?}") };
                got.extend_from_slice(&bytes);
                fins += usize::from(fin);
            }
            assert!(got == big && fins == 1);
            assert!(client.send(3, b"more", false).is_err());
            server.send(5, b"out", true).unwrap();
            let data = Event::Data { id: 5, bytes: Bytes::from_static(b"out"), fin: true };
            assert_eq!(carry(&mut server, &mut client, 1 << 20), [data]);
        }
    }

    #[test]
    fn pings_resets_and_farewells() {
        let (mut client, mut server) = (Connection::new(Role::Client), Connection::new(Role::Server));
        client.ping(1);
        assert!(carry(&mut client, &mut server, 3).is_empty());
        assert_eq!(carry(&mut server, &mut client, 3), [Event::Pong(1)]);
        let id = client.open(&[], false).unwrap();
        carry(&mut client, &mut server, 100);
        server.reset(id, 5);
        assert_eq!(carry(&mut server, &mut client, 100), [Event::Reset { id, status: 5 }]);
        assert!(client.send(id, b"x", false).is_err());
        server.go_away();
        assert_eq!(carry(&mut server, &mut client, 100), [Event::GoAway]);
    }

    #[test]
    fn nonsense_is_an_error() {
        let check = |bytes: &[u8]| {
            let mut server = Connection::new(Role::Server);
            server.receive(bytes);
            assert!(server.next_event().is_err(), "{bytes:?}");
        };
        check(b"\x80\x02\x00\x01\x00\x00\x00\x00");
        check(b"\x80\x03\x00\x01\x00\xff\xff\xff");
        check(b"\x80\x03\x00\x01\x00\x00\x00\x02ab");
        check(b"\x80\x03\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00junk");
        let mut client = Connection::new(Role::Client);
        client.open(&[("a", "b")], false).unwrap();
        // A stream that a server opens has an even number.
        let mut other = Connection::new(Role::Client);
        other.receive(&client.take_output());
        assert!(other.next_event().is_err());
    }
}
