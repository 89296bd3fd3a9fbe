//! Messages as librdkafka hands them out and takes them: read in place, returned together; sent, and reported, many at a time.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// Messages of one partition, returned to it when dropped.
#[derive(Default)]
pub(super) struct Messages {
    list: Vec<*mut native::rd_kafka_message_t>,
    /// How many of them are done with.
    done: usize,
}

impl Messages {
    /// Takes at most so many from a queue: waits this long for the first, and not for the others.
    pub(super) fn take(&mut self, queue: &Queue, most: usize, wait_ms: i32) {
        self.clear();
        // SAFETY: the queue lives as long as `queue`; what it gives is ours until it is destroyed.
        let first = unsafe { native::rd_kafka_consume_queue(queue.pointer, wait_ms) };
        if first.is_null() {
            return;
        }
        self.list.reserve(most.max(1));
        self.list.push(first);
        let room = most.saturating_sub(1);
        if room > 0 {
            // SAFETY: there is room for that many pointers after the first, and the call says how many it has written.
            unsafe {
                let into = self.list.as_mut_ptr().add(1);
                let count = native::rd_kafka_consume_batch_queue(queue.pointer, 0, into, room);
                self.list.set_len(1 + usize::try_from(count).unwrap_or(0));
            }
        }
    }

    /// Those that are not done with.
    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> + '_ {
        // SAFETY: the pointers are messages that live until they are cleared, for which `self` has to be borrowed mutably.
        self.list[self.done..].iter().map(|message| Message(unsafe { &**message }))
    }

    /// Whether all are done with.
    pub(super) fn is_done(&self) -> bool {
        self.done >= self.list.len()
    }

    /// So many more are done with; all are returned once the last one is.
    pub(super) fn finish(&mut self, count: usize) {
        self.done += count;
        if self.is_done() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.done = 0;
        for message in self.list.drain(..) {
            // SAFETY: each was given to us once, and is forgotten here.
            unsafe { native::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

// SAFETY: librdkafka's messages belong to no thread.
unsafe impl Send for Messages {}

/// A message, or the word that there is none.
#[derive(Clone, Copy)]
pub(super) struct Message<'m>(&'m native::rd_kafka_message_t);

impl<'m> Message<'m> {
    /// What is wrong, unless it is a message.
    pub(super) fn error(self) -> Option<RDKafkaErrorCode> {
        (self.0.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.0.err.into())
    }

    /// The words of an error.
    pub(super) fn error_text(self) -> String {
        // SAFETY: the text of a message that is an error lives as long as the message.
        let text = unsafe { native::rd_kafka_message_errstr(ptr::from_ref(self.0)) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: librdkafka's texts end with a zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    pub(super) fn value(self) -> Option<&'m [u8]> {
        bytes(self.0.payload, self.0.len)
    }

    pub(super) fn key(self) -> Option<&'m [u8]> {
        bytes(self.0.key, self.0.key_len)
    }

    /// Milliseconds since 1970.
    pub(super) fn timestamp(self) -> Option<i64> {
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives, and the kind is written to a place of ours.
        let at = unsafe { native::rd_kafka_message_timestamp(ptr::from_ref(self.0), &mut kind) };
        (kind != native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && at >= 0).then_some(at)
    }

    /// Calls with each header.
    pub(super) fn headers(self, mut each: impl FnMut(&str, Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the headers belong to the message and live as long as it.
        let found = unsafe { native::rd_kafka_message_headers(ptr::from_ref(self.0), &mut headers) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the three are written only if there is a header of that number, and point into the message.
            let found = unsafe { native::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: names end with a zero.
            let name = unsafe { CStr::from_ptr(name) };
            each(&name.to_string_lossy(), bytes(value.cast_mut(), length));
        }
    }
}

fn bytes<'m>(at: *mut std::ffi::c_void, length: usize) -> Option<&'m [u8]> {
    // SAFETY: librdkafka says where the bytes are and how many; they live as long as their message.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at.cast_const().cast::<u8>(), length) })
}

/// A queue that a partition is read into.
pub(super) struct Queue {
    pointer: *mut native::rd_kafka_queue_t,
}

impl Queue {
    /// A queue of this client.
    pub(super) fn new(client: *mut native::rd_kafka_t) -> Queue {
        // SAFETY: the client outlives the queue: its owner holds both.
        Queue { pointer: unsafe { native::rd_kafka_queue_new(client) } }
    }

    /// The queue of what a client reports.
    fn main(client: *mut native::rd_kafka_t) -> Queue {
        // SAFETY: as above; the call counts the reference that is given back when this is dropped.
        Queue { pointer: unsafe { native::rd_kafka_queue_get_main(client) } }
    }

    pub(super) fn pointer(&self) -> *mut native::rd_kafka_queue_t {
        self.pointer
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it was made by us, and nobody uses it any more.
        unsafe { native::rd_kafka_queue_destroy(self.pointer) };
    }
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

// SAFETY: librdkafka locks its queues: any number of threads may poll one.
unsafe impl Sync for Queue {}

/// The number of no partition: the client chooses one.
const PARTITION_CHOSEN: i32 = -1;

/// Messages that are handed over together: keys and values, which are copied then.
pub(super) struct Lot<'m> {
    list: Vec<native::rd_kafka_message_t>,
    bytes: usize,
    content: PhantomData<&'m [u8]>,
}

/// What came of a lot.
pub(super) struct Sent {
    /// How many messages were taken, and how many bytes of keys and values they have.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// The first message that was not taken, and why. With a full queue, none after it was taken.
    pub(super) refused: Option<(usize, RDKafkaErrorCode)>,
}

impl<'m> Lot<'m> {
    pub(super) fn with_capacity(messages: usize) -> Lot<'m> {
        Lot { list: Vec::with_capacity(messages), bytes: 0, content: PhantomData }
    }

    /// Adds a message, of which a report will have this tag.
    pub(super) fn push(&mut self, key: Option<&'m [u8]>, value: Option<&'m [u8]>, tag: usize) {
        let pointer = |bytes: Option<&[u8]>| bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast());
        let (len, key_len) = (value.map_or(0, <[u8]>::len), key.map_or(0, <[u8]>::len));
        self.bytes += len + key_len;
        self.list.push(native::rd_kafka_message_t {
            err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            rkt: ptr::null_mut(),
            partition: PARTITION_CHOSEN,
            payload: pointer(value),
            len,
            key: pointer(key),
            key_len,
            offset: 0,
            _private: ptr::without_provenance_mut(tag),
        });
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many bytes the keys and values have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a client tells.
pub(super) enum Report {
    /// A message was delivered, or was given up for the error.
    Message { tag: usize, bytes: usize, error: Option<RDKafkaErrorCode> },
    /// What the client says of itself.
    Trouble { error: RDKafkaErrorCode, reason: String },
}

/// The topic that a client sends to, and what it reports of that. The client outlives it: its owner holds both.
pub(super) struct Outlet {
    client: *mut native::rd_kafka_t,
    topic: *mut native::rd_kafka_topic_t,
    events: Queue,
}

impl Outlet {
    /// For this topic; `None` if the client refuses its name.
    pub(super) fn new(client: *mut native::rd_kafka_t, topic: &str) -> Option<Outlet> {
        let name = CString::new(topic).ok()?;
        // SAFETY: the client lives, and the name through the call, which copies it. Null is checked for.
        let topic = unsafe { native::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
        (!topic.is_null()).then(|| Outlet { client, topic, events: Queue::main(client) })
    }

    /// Hands over messages of one partition, or those whose partitions the client chooses.
    pub(super) fn send(&self, lot: Lot<'_>, partition: Option<i32>) -> Sent {
        let Lot { mut list, bytes, .. } = lot;
        let total = list.len();
        let partition = partition.unwrap_or(PARTITION_CHOSEN);
        let count = i32::try_from(total).expect("a lot has few messages");
        // SAFETY: the list has that many messages, whose keys and values live through the call by the lifetime of the lot: the flag has
        // them copied. The call writes only into the list.
        let taken = unsafe { native::rd_kafka_produce_batch(self.topic, partition, native::RD_KAFKA_MSG_F_COPY, list.as_mut_ptr(), count) };
        let messages = usize::try_from(taken).unwrap_or(0);
        if messages == total {
            return Sent { messages, bytes, refused: None };
        }
        let is_refused = |message: &native::rd_kafka_message_t| message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let left: usize = list.iter().filter(|message| is_refused(message)).map(|message| message.len + message.key_len).sum();
        let refused = list.iter().position(is_refused).map(|place| (place, list[place].err.into()));
        Sent { messages, bytes: bytes - left, refused }
    }

    /// Asks the client to send what it gathers, without waiting for more. It does so while the call waits, so that takes a moment.
    pub(super) fn hurry(&self) {
        // SAFETY: the client lives. Whether all is delivered is known from the reports, not from the result.
        let _ = unsafe { native::rd_kafka_flush(self.client, 1) };
    }

    /// Takes what the client has to report next, for which it waits this long; whether there was anything.
    pub(super) fn serve(&self, wait: Duration, mut each: impl FnMut(Report)) -> bool {
        // SAFETY: the queue lives as long as `self`; what it gives is ours.
        let event = unsafe { native::rd_kafka_queue_poll(self.events.pointer, wait.as_millis() as i32) };
        if event.is_null() {
            return false;
        }
        let event = Event(event);
        // SAFETY: the event lives until it is dropped.
        match unsafe { native::rd_kafka_event_type(event.0) } {
            native::RD_KAFKA_EVENT_DR => {
                loop {
                    // SAFETY: as above; a message lives as long as its event.
                    let message = unsafe { native::rd_kafka_event_message_next(event.0).as_ref() };
                    let Some(message) = message else { break };
                    let error = (message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| message.err.into());
                    each(Report::Message { tag: message._private.addr(), bytes: message.len + message.key_len, error });
                }
            }
            native::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: as above.
                let error = unsafe { native::rd_kafka_event_error(event.0) }.into();
                // SAFETY: as above; the text ends with a zero, and is copied.
                let reason = unsafe { CStr::from_ptr(native::rd_kafka_event_error_string(event.0)) }.to_string_lossy().trim().to_owned();
                each(Report::Trouble { error, reason });
            }
            _ => {}
        }
        true
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and is given back once.
        unsafe { native::rd_kafka_topic_destroy(self.topic) };
    }
}

// SAFETY: librdkafka's handles may be used from any thread, and from several at once.
unsafe impl Send for Outlet {}
// SAFETY: as above.
unsafe impl Sync for Outlet {}

/// An event, which is given back when dropped.
struct Event(*mut native::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was given to us once. Its messages go with it.
        unsafe { native::rd_kafka_event_destroy(self.0) };
    }
}
