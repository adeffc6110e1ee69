//! Kafka's id of a topic, which tells a topic from another that was created under its name.
//!
//! The Rust client has no call for it, librdkafka has (`DescribeTopics`): this file and
//! `member_id.rs` are the only places with foreign calls. Every pointer it takes is freed by the guard beside it.

#![expect(unsafe_code, reason = "librdkafka's DescribeTopics has no safe wrapper")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use crate::offset::TopicId;

/// Why topic ids could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopicIdError {
    /// A name with a NUL byte.
    #[error("topic name {0:?} is not valid")]
    Name(String),
    /// The brokers did not answer in time.
    #[error("no answer from Kafka about topics within {0:?}")]
    Timeout(Duration),
    /// The request as a whole failed.
    #[error("describe topics: {0}")]
    Request(String),
}

struct Guard<T> {
    ptr: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.ptr.is_null() {
            // SAFETY: the pointer came from librdkafka's matching constructor and is freed once.
            unsafe { (self.free)(self.ptr) }
        }
    }
}

/// The ids of those of `topics` that exist. Blocks up to `timeout`: call it off the async threads.
///
/// # Errors
/// When Kafka does not answer or refuses the request as a whole; a topic that does not exist is
/// merely missing in the answer.
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, TopicId>, TopicIdError> {
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let names = topics
        .iter()
        .map(|topic| CString::new(*topic).map_err(|_| TopicIdError::Name((*topic).to_owned())))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let rk = client.native_ptr();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `rk` lives as long as `client`; `pointers` point into `names`, which outlive the
    // calls; librdkafka copies the names; every object made here is freed by its guard.
    unsafe {
        let collection = Guard {
            ptr: sys::rd_kafka_TopicCollection_of_topic_names(
                pointers.as_mut_ptr(),
                pointers.len(),
            ),
            free: sys::rd_kafka_TopicCollection_destroy,
        };
        let options = Guard {
            ptr: sys::rd_kafka_AdminOptions_new(
                rk,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            free: sys::rd_kafka_AdminOptions_destroy,
        };
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options.ptr,
            millis,
            std::ptr::null_mut(),
            0,
        );
        let queue = Guard { ptr: sys::rd_kafka_queue_new(rk), free: sys::rd_kafka_queue_destroy };
        sys::rd_kafka_DescribeTopics(rk, collection.ptr, options.ptr, queue.ptr);
        let event = Guard {
            ptr: sys::rd_kafka_queue_poll(queue.ptr, millis.saturating_add(1000)),
            free: sys::rd_kafka_event_destroy,
        };
        if event.ptr.is_null() {
            return Err(TopicIdError::Timeout(timeout));
        }
        read_answer(event.ptr)
    }
}

/// # Safety
/// `event` is the live answer to a `DescribeTopics` request.
unsafe fn read_answer(
    event: *mut sys::rd_kafka_event_t,
) -> Result<HashMap<String, TopicId>, TopicIdError> {
    // SAFETY: by this function's contract; texts and descriptions belong to the event and are
    // copied before it is freed.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return Err(TopicIdError::Request(text(sys::rd_kafka_event_error_string(event))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(TopicIdError::Request("unexpected kind of answer".to_owned()));
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut ids = HashMap::with_capacity(count);
        for index in 0..count {
            let description = *descriptions.add(index);
            let error = sys::rd_kafka_TopicDescription_error(description);
            if sys::rd_kafka_error_code(error)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                continue;
            }
            let uuid = sys::rd_kafka_TopicDescription_topic_id(description);
            if uuid.is_null() {
                continue;
            }
            let id = text(sys::rd_kafka_Uuid_base64str(uuid));
            ids.insert(text(sys::rd_kafka_TopicDescription_name(description)), TopicId(id.into()));
        }
        Ok(ids)
    }
}

/// # Safety
/// `ptr` is null or a NUL-terminated text that lives during the call.
unsafe fn text(ptr: *const std::ffi::c_char) -> String {
    if ptr.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(ptr) }.to_string_lossy().into_owned()
}
