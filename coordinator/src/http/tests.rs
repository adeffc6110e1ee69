//! Bodies and codes of refusals.

use axum::body::to_bytes;
use axum::response::IntoResponse;
use cdc_shared::api::ErrorBody;

use super::*;
use crate::watermark::StoreError;

async fn answer(error: ApiError) -> (u16, ErrorBody) {
    let response = error.into_response();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 65_536).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn refusals_have_one_shape_and_stable_codes() {
    let unreadable = StoreError::Unavailable { address: "redis://r".into(), cause: "gone".into() };
    for (error, status, code) in [
        (ApiError::not_leader(), 409, "not_leader"),
        (ApiError::wrong_pipeline("a", "b"), 422, "wrong_pipeline"),
        (ApiError::store(&unreadable), 503, "store_unreadable"),
        (ApiError::unauthorized("worker"), 401, "unauthorized"),
    ] {
        let (found, body) = answer(error).await;
        assert_eq!((found, body.code.as_str()), (status, code));
        assert!(body.hint.is_some());
    }
}
