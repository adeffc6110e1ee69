//! Whether a consumer is a member of its group, by its member id: the Rust client has no call for
//! it, librdkafka has.

#![expect(unsafe_code, reason = "librdkafka's memberid has no safe wrapper")]

use std::ffi::CStr;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

/// The member id that a consumer has in its group now. With the classic protocol the broker gives
/// it and it is gone as soon as the consumer leaves; with KIP-848 the client makes it and keeps it.
/// Waits for librdkafka's main thread, not for a broker.
pub fn member_id<C: ClientContext>(client: &Client<C>) -> Option<String> {
    // SAFETY: the handle lives as long as `client`; the text is ours and freed once, after it was
    // copied.
    unsafe {
        let text = sys::rd_kafka_memberid(client.native_ptr());
        if text.is_null() {
            return None;
        }
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(client.native_ptr(), text.cast());
        Some(id).filter(|id| !id.is_empty())
    }
}
