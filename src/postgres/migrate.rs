pub async fn pending(_c: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    Ok(false)
}
