//! Messages as librdkafka hands them out: read in place, returned together.

use std::ffi::CStr;
use std::ptr;
use std::slice;

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
