//! The original bug as a test of 15 lines: a lock that lies in the container's own layer is gone
//! when the container is made anew.
//!
//!     cargo run --package lockproof-testcontainers --example testcontainers

use lockproof_testcontainers::{ComfyUi, Result, Verdict};

#[tokio::main]
async fn main() -> Result<()> {
    let mut comfyui = ComfyUi::lab().await?.start().await?;
    comfyui.install_lab_login().await?;
    let keys = comfyui.mint().await?;
    assert_eq!(comfyui.status("/queue").await?, 401);
    assert_eq!(comfyui.verdict(&keys).await?, Verdict::Locked);

    comfyui.restart().await?; // hides the bug: the container keeps its layer
    assert_eq!(comfyui.verdict(&keys).await?, Verdict::Locked);

    comfyui.recreate().await?; // as `docker compose up --force-recreate`
    assert_eq!(comfyui.status("/queue").await?, 200);
    assert_eq!(comfyui.verdict(&keys).await?, Verdict::Open);
    comfyui.remove().await
}
